import type { PublishOutcome } from '@cloudphone/bus/bus'
import { defineEvent, type EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { notifier } from '@cloudphone/db/listen'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { giveBackLanes, holdLanes, LANES, type LaneClaim } from './lanes.ts'
import { fact, OUTBOX_MIGRATIONS, openOutbox } from './open-outbox.ts'
import { markFailed, markPublished, unpublishedRows } from './outbox-rows.ts'
import { openRelay, type RelayOptions } from './relay.ts'

/* What keeps two relays from working on one lane, and rows in their order and in the table, each guard by itself. */

const ThingMoved = defineEvent({
  name: 'thing.moved',
  version: 1,
  aggregate: 'thing',
  description: 'A thing moved.',
  payload: z.object({}),
})
const log = silentLog()
const outbox = openOutbox({ source: 'devices', ids: systemIds, wake: () => undefined })
const undo: (() => Promise<unknown>)[] = []
let place: TestDatabase
let database: Database<unknown>

beforeEach(async () => {
  place = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS], schema: 'room' })
  database = openDatabase({ url: place.url, schema: 'room', poolSize: 5, applicationName: 'test', log })
})
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
  await database.close()
  await place.drop()
})

/** The executor of a relay that lives until the test's end. */
async function openExecutor(): Promise<Executor & { readonly id: string }> {
  const executor = holdExecutor({ url: place.url, applicationName: 'test executor', log })
  undo.push(() => executor.close())
  const { id } = await executor.held()
  return Object.assign(executor, { id })
}
const hold = (owner: string, surplus: LaneClaim['surplus'] = 'keep') =>
  holdLanes(database.kysely, { owner, ttlMs: 3_600_000, surplus })
const numbers = (lanes: readonly { readonly lane: number }[]): number[] => lanes.map(({ lane }) => lane)

async function write(thing: string, ...versions: number[]): Promise<void> {
  const facts = versions.map((version) =>
    fact(ThingMoved, { aggregateId: thing, aggregateVersion: version, payload: {} }),
  )
  await database.transaction((tx) => outbox.addMany(tx, facts))
}

interface Seen {
  readonly status: string
  readonly retry_count: number
}
const seen = async (): Promise<readonly Seen[]> =>
  (await sql<Seen>`select status, retry_count from event_outbox order by position`.execute(database.kysely))
    .rows

test('a lane has one relay at a time, each taking of it a higher epoch', async () => {
  const [one, other] = [await openExecutor(), await openExecutor()]
  const all = await hold(one.id)
  expect(numbers(all.lanes)).toHaveLength(LANES)
  // Half of them is its share now, but they are not free yet.
  expect(await hold(other.id)).toEqual({ lanes: [], share: LANES / 2 })
  const kept = await hold(one.id, 'give back')
  const won = await hold(other.id)
  expect([...numbers(kept.lanes), ...numbers(won.lanes)]).toEqual(numbers(all.lanes))
  for (const { lane, epoch } of won.lanes)
    expect(epoch).toBe((all.lanes.find((before) => before.lane === lane)?.epoch ?? 0) + 1)
})

test('a lane that another relay is about to take is left to it, and not waited for', async () => {
  const { id } = await openExecutor()
  const taken = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  const other = database.transaction(async (tx) => {
    await sql`update outbox_lane set owner = 'another', epoch = epoch + 1 where lane = 3`.execute(tx)
    taken.resolve()
    await gate.promise
  })
  await taken.promise
  const { lanes } = await database
    .transaction(async (tx) => {
      await sql`set local lock_timeout = '2s'`.execute(tx)
      return await holdLanes(tx, { owner: id, ttlMs: 3_600_000, surplus: 'keep' })
    })
    .finally(gate.resolve)
  await other
  expect(numbers(lanes)).toEqual(
    Array.from({ length: LANES }, (_, lane) => lane).filter((lane) => lane !== 3),
  )
})

test('a relay that gave its lanes back marks nothing', async () => {
  await write('a', 1)
  const { id: owner } = await openExecutor()
  const { lanes } = await hold(owner)
  const rows = await unpublishedRows(database.kysely, { lanes, limit: 10 })
  await giveBackLanes(database.kysely, owner)
  const ids = rows.map(({ id }) => id)
  expect(await markPublished(database.kysely, ids, { owner, lanes })).toBe(0)
  expect(await seen()).toMatchObject([{ status: 'pending' }])
})

test('a failure noted under an old epoch is refused', async () => {
  await write('a', 1)
  const { id: owner } = await openExecutor()
  const stale = await hold(owner)
  const [row] = await unpublishedRows(database.kysely, { lanes: stale.lanes, limit: 10 })
  await sql`update outbox_lane set epoch = epoch + 1`.execute(database.kysely)
  const failures = [{ id: row?.id ?? '', error: 'too late' }]
  await markFailed(database.kysely, failures, { owner, lanes: stale.lanes })
  expect(await seen()).toEqual([{ status: 'pending', retry_count: 0 }])
  await markFailed(database.kysely, failures, { owner, lanes: (await hold(owner)).lanes })
  expect(await seen()).toEqual([{ status: 'failed', retry_count: 1 }])
})

/** Starts a relay that publishes to `publish`. */
async function startRelay(
  publish: (envelopes: readonly EventEnvelope[]) => Promise<readonly PublishOutcome[]>,
  options: Partial<RelayOptions> = {},
): Promise<void> {
  const notify = notifier({ url: place.url, applicationName: 'test notifier', log })
  const relay = openRelay({
    database,
    bus: { publish, declare: async () => undefined },
    executor: await openExecutor(),
    notifier: notify,
    log,
    metrics: openMetrics('test'),
    crash: { reach: async () => undefined },
    ...options,
  })
  undo.push(async () => {
    await relay.stop()
    await notify.close()
  })
  await relay.start()
}

test('a relay that stood still for longer than its lease publishes nothing', async () => {
  const ttlMs = 300
  await write('a', 1)
  const other = await openExecutor()
  const published: EventEnvelope[] = []
  const stood = Promise.withResolvers<void>()
  await startRelay(
    async (envelopes) => {
      published.push(...envelopes)
      return envelopes.map(() => ({ outcome: 'accepted' as const }))
    },
    {
      ttlMs,
      crash: {
        // Between its look at the rows and their publication another relay takes the lanes, and it itself freezes.
        reach: async (place) => {
          if (place !== 'outbox.after_claim') return
          await sql`
            with relay as (insert into outbox_relay values (${other.id}, clock_timestamp() + interval '1 hour'))
            update outbox_lane set owner = ${other.id}, epoch = epoch + 1`.execute(database.kysely)
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ttlMs)
          stood.resolve()
        },
      },
    },
  )
  await stood.promise
  // Everything that it had begun has ended when it has stopped.
  for (const step of undo.splice(0).reverse()) await step()
  expect(published).toEqual([])
  expect(await seen()).toEqual([{ status: 'pending', retry_count: 0 }])
})

test('what was selected while an event was refused does not overtake it', async () => {
  await write('a', 1, 2, 3, 4)
  const versions: number[] = []
  const refused = Promise.withResolvers<void>()
  const clock = testClock(place)
  await startRelay(
    async (envelopes) =>
      envelopes.map(({ aggregateversion }): PublishOutcome => {
        if (versions.length === 0 && aggregateversion === 1) {
          versions.push(-1)
          refused.resolve()
          return { outcome: 'failed', error: 'not now' }
        }
        versions.push(aggregateversion)
        return { outcome: 'accepted' }
      }),
    { batchSize: 1, clock },
  )
  await refused.promise
  await clock.whenSleeping(1)
  expect(versions).toEqual([-1])
  await clock.advance(1_000)
  while ((await seen()).some(({ status }) => status !== 'published')) await clock.advance(1_000)
  expect(versions).toEqual([-1, 1, 2, 3, 4])
})

test('a row that failed holds up those behind it in its aggregate, and no other aggregate', async () => {
  await write('a', 1, 2)
  await write('b', 1)
  const { id: owner } = await openExecutor()
  const { lanes } = await hold(owner)
  const waiting = () => unpublishedRows(database.kysely, { lanes, limit: 10 })
  const [first] = await waiting()
  await markFailed(database.kysely, [{ id: first?.id ?? '', error: 'refused' }], { owner, lanes })
  expect(await waiting()).toMatchObject([{ aggregateId: 'b', aggregateVersion: 1 }])
})

test('a row that the bus has not taken is not marked', async () => {
  await write('a', 1)
  let asked = 0
  await startRelay(async () => {
    asked += 1
    throw new Error('away')
  })
  while (asked < 2 && (await seen())[0]?.status === 'pending') await new Promise(setImmediate)
  expect(await seen()).toEqual([{ status: 'pending', retry_count: 0 }])
})

test('a row that no queue took is not published', async () => {
  await write('a', 1)
  await startRelay(async (envelopes) => envelopes.map(() => ({ outcome: 'unroutable' as const })))
  while ((await seen())[0]?.status === 'pending') await new Promise(setImmediate)
  expect(await seen()).toMatchObject([{ status: 'failed' }])
})
