import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { clientConfig } from '@cloudphone/db/target'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Bus, Delivery } from '../bus.ts'
import { envelope, MOVED, until } from '../contract/support.ts'
import { drillTopology } from '../drill/room.ts'
import { beat } from './consumer-heart.ts'
import { buryDelivery, delayDelivery, settleAndClaim } from './deliveries.ts'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from './embedded-bus.ts'

/* What keeps two consumers from working on one delivery, each guard by itself, under executors that only exist by name. */

let place: TestDatabase
let database: Database<unknown>
let bus: Bus

beforeEach(async () => {
  place = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  const log = silentLog()
  database = openDatabase({ url: place.url, schema: 'bus', poolSize: 3, applicationName: 'test', log })
  bus = openEmbeddedBus({
    url: place.url,
    log,
    metrics: openMetrics('test'),
    crash: crashPoints(''),
    subscriptions: drillTopology,
    retryDelaysMs: [],
  })
  await bus.declare()
  for (const executor of ['one', 'other']) await beat(database.kysely, { executor, ttlMs: 3_600_000 })
})
afterEach(async () => {
  await bus.close()
  await database.close()
  await place.drop()
})

const moved = (thing: string, version: number) => envelope('thing.moved', thing, version)
const claim = async (executor: string, most: number): Promise<readonly number[]> =>
  (await settleAndClaim(database.kysely, { queue: MOVED, executor, done: [], most })).map(
    ({ position }) => position,
  )
interface Row {
  readonly claimed_by: string | null
  readonly failures: number
}
const rows = async (): Promise<readonly Row[]> =>
  (
    await sql<Row>`
      select claimed_by, failures from bus_delivery where queue = ${MOVED} order by position`.execute(
      database.kysely,
    )
  ).rows

test('an event that is published twice waits in its queue once', async () => {
  const event = moved('a', 1)
  const accepted = [{ outcome: 'accepted' }]
  expect(await bus.publish([event])).toEqual(accepted)
  expect(await bus.publish([event])).toEqual(accepted)
  expect(await rows()).toHaveLength(1)
})

test('what was taken from a consumer is no longer its to settle', async () => {
  await bus.publish([moved('a', 1)])
  const [position = 0] = await claim('one', 1)
  await sql`update bus_delivery set claimed_by = null where queue = ${MOVED}`.execute(database.kysely)
  expect(await claim('other', 1)).toEqual([position])
  const late = { queue: MOVED, executor: 'one', position, error: 'too late' }
  await settleAndClaim(database.kysely, { ...late, done: [position], most: 0 })
  await delayDelivery(database.kysely, { ...late, delayMs: 1_000 })
  await buryDelivery(database.kysely, late)
  expect(await rows()).toEqual([{ claimed_by: 'other', failures: 0 }])
  expect(await bus.deadLetters.list()).toEqual([])
})

test('two claims at once never take two events of one aggregate apart', async () => {
  await bus.publish([moved('a', 1), moved('a', 2)])
  const first = new pg.Client(clientConfig(place.url, 'first'))
  await first.connect()
  try {
    await first.query('begin')
    await first.query(`select from bus.settle_and_claim($1, 'one', '{}', 1)`, [MOVED])
    // The other's claim meets it in the middle.
    const second = claim('other', 2)
    await until(async () => {
      const { rows: waiting } = await sql`
        select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`.execute(database.kysely)
      return waiting.length > 0
    })
    await first.query('commit')
    expect(await second).toEqual([])
  } finally {
    await first.end()
  }
  // Nor does one that comes later.
  expect(await claim('other', 2)).toEqual([])
  expect(await rows()).toMatchObject([{ claimed_by: 'one' }, { claimed_by: null }])
})

test('an executor that is no consumer claims nothing', async () => {
  await bus.publish([moved('a', 1)])
  expect(await claim('a stranger', 1)).toEqual([])
  expect(await claim('one', 1)).toHaveLength(1)
})

test('a batch that fails as a whole is handled one by one', async () => {
  const got: number[] = []
  await bus.publish([moved('a', 1), moved('a', 2), moved('b', 1)])
  await bus.consume(
    MOVED,
    async (delivery) => {
      got.push(delivery.envelope.aggregateversion)
      return { verdict: 'done' }
    },
    { together: () => Promise.reject(new Error('as a whole')) },
  )
  await bus.idle()
  expect(got.toSorted()).toEqual([1, 1, 2])
})

test('a dead letter that is replayed and dies again is the same one', async () => {
  const event = moved('a', 1)
  const got: Delivery[] = []
  await bus.consume(MOVED, async (delivery) => {
    got.push(delivery)
    return { verdict: 'dead', error: new Error(`death ${got.length}`) }
  })
  await bus.publish([event])
  await until(async () => (await bus.deadLetters.list()).length === 1)
  expect(await bus.deadLetters.replayAll()).toBe(1)
  await until(async () => (await bus.deadLetters.list()).length === 1)
  expect(got).toHaveLength(2)
  expect(await bus.deadLetters.list()).toMatchObject([{ eventId: event.id, envelope: { id: event.id } }])
})
