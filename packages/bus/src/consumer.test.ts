import { defineEvent, type EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type Database, openDatabase, type Tx } from '@cloudphone/db/database'
import { DatabaseUnavailable } from '@cloudphone/db/errors'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { currentTraceparent, newTraceparent } from '@cloudphone/observe/trace'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import type { Bus } from './bus.ts'
import { type EventHandler, on, startConsumers } from './consumer.ts'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from './embedded/embedded-bus.ts'
import { INBOX_MIGRATIONS } from './inbox.ts'

const thing = (name: string) =>
  defineEvent({
    name,
    version: 1,
    aggregate: 'thing',
    description: 'Something happened to a thing.',
    payload: z.object({ place: z.string() }),
  })
const Moved = thing('thing.moved')
const Seen = thing('thing.seen')
const topology: readonly Subscription[] = [
  { queue: 'scheduler.thing', service: 'scheduler', events: [Moved, Seen], critical: true },
]
const QUEUE = 'scheduler.thing'

const log = silentLog()
const undo: (() => Promise<unknown>)[] = []
let place: TestDatabase
let busPlace: TestDatabase
let database: Database<unknown>
let bus: Bus
let metrics: ReturnType<typeof openMetrics>

beforeEach(async () => {
  ;[place, busPlace] = await Promise.all([
    createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, INBOX_MIGRATIONS], schema: 'room' }),
    createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS], schema: 'bus' }),
  ])
  database = openDatabase({ url: place.url, schema: 'room', poolSize: 5, applicationName: 'test', log })
  await sql`create table effect (thing text, place text)`.execute(database.kysely)
  bus = openEmbeddedBus({
    url: busPlace.url,
    log,
    metrics: openMetrics('bus'),
    crash: crashPoints(''),
    subscriptions: topology,
    retryDelaysMs: [10, 10, 10],
  })
  await bus.declare()
  metrics = openMetrics('scheduler')
})
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
  await bus.close()
  await database.close()
  await Promise.all([place.drop(), busPlace.drop()])
})

const start = async (...handlers: EventHandler<unknown>[]): Promise<void> => {
  const consumers = await startConsumers({
    bus,
    database,
    service: 'scheduler',
    handlers,
    log,
    metrics,
    crash: crashPoints(''),
    subscriptions: topology,
  })
  undo.push(() => consumers.close())
}

const move = async (tx: Tx<unknown>, event: { subject: string; data: { place: string } }): Promise<void> => {
  await sql`insert into effect values (${event.subject}, ${event.data.place})`.execute(tx)
}
const effects = async (): Promise<unknown[]> =>
  (await sql`select thing, place from effect`.execute(database.kysely)).rows

function envelope(changes: Partial<EventEnvelope> = {}): EventEnvelope {
  return {
    specversion: '1.0',
    id: systemIds.next(),
    source: 'devices',
    type: 'thing.moved',
    subject: 'a',
    time: '2026-01-02T03:04:05.678Z',
    datacontenttype: 'application/json',
    dataschema: 'urn:cloudphone:thing.moved:v1',
    aggregatetype: 'thing',
    aggregateversion: 7,
    data: { place: 'here' },
    ...changes,
  }
}

async function letters(): Promise<{ attempts: number; error: string }[]> {
  await bus.idle()
  return (await bus.deadLetters.list()).map(({ attempts, error }) => ({ attempts, error }))
}

async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await look())) await new Promise((resolve) => setTimeout(resolve, 2))
}

test('a handler gets the event parsed, in its trace, and its effect is counted', async () => {
  const traceparent = newTraceparent()
  let got: unknown
  await start(
    on([Moved, Seen], async (_tx, event) => {
      got = { ...event, running: currentTraceparent() }
    }),
  )
  const sent = envelope({ traceparent })
  await bus.publish([sent])
  await bus.idle()
  expect(got).toEqual({
    id: sent.id,
    type: 'thing.moved',
    subject: 'a',
    time: new Date('2026-01-02T03:04:05.678Z'),
    aggregateType: 'thing',
    aggregateVersion: 7,
    traceparent,
    data: { place: 'here' },
    running: traceparent,
  })
  const text = await metrics.render()
  expect(text).toMatch(/scheduler_event_consumed_total{event_type="thing.moved".*} 1/)
  expect(text).toMatch(/scheduler_event_processing_duration_seconds_count{.*event_type="thing.moved".*} 1/)
})

test('an event that is delivered again has its effect once', async () => {
  await start(on([Moved, Seen], move))
  const sent = envelope()
  for (let time = 0; time < 3; time += 1) {
    await bus.publish([sent, sent])
    await bus.idle()
  }
  expect(await effects()).toEqual([{ thing: 'a', place: 'here' }])
  expect(await metrics.render()).toMatch(/scheduler_event_duplicate_total{event_type="thing.moved".*} 2/)
})

test('trap 16: a failed try leaves neither effect nor inbox row, and the next one has both', async () => {
  let tries = 0
  await start(
    on([Moved, Seen], async (tx, event) => {
      await move(tx, event)
      tries += 1
      if (tries < 3) throw new Error('stumbled')
    }),
  )
  await bus.publish([envelope()])
  await until(() => tries === 3)
  await bus.idle()
  expect(await effects()).toHaveLength(1)
  expect(await letters()).toEqual([])
})

test('trap 15: malformed, unknown and refused events are dead letters after one try', async () => {
  let ran = 0
  await start(
    on([Moved, Seen], async () => {
      ran += 1
      throw Object.assign(new Error('no such thing'), { retryable: false })
    }),
  )
  await sql`insert into bus_subscription values ('thing.lost', ${QUEUE})`.execute(await busRows())
  await bus.publish([
    envelope({ subject: 'a', data: { place: 7 } }),
    envelope({ subject: 'b', type: 'thing.lost' }),
    envelope({ subject: 'c', id: '5ff0b2d4-7f0c-4d3e-9a51-0c8d6d5b8f11' }),
    envelope({ subject: 'd' }),
  ])
  await bus.idle()
  const found = await letters()
  expect(found.map(({ attempts }) => attempts)).toEqual([1, 1, 1, 1])
  const reasons = found.map(({ error }) => error).join('\n')
  expect(reasons).toContain('does not fit version 1')
  expect(reasons).toContain('thing.lost is unknown to this queue')
  expect(reasons).toContain('is not a UUIDv7')
  expect(reasons).toContain('no such thing')
  expect(ran).toBe(1)
})

async function busRows() {
  const extra = openDatabase({ url: busPlace.url, schema: 'bus', poolSize: 1, applicationName: 'test', log })
  undo.push(() => extra.close())
  return extra.kysely
}

test('trap 16: a replayed dead letter that had been applied after all is refused by the inbox', async () => {
  let broken = true
  await start(
    on([Moved, Seen], async (tx, event) => {
      if (broken) throw Object.assign(new Error('bug'), { retryable: false })
      await move(tx, event)
    }),
  )
  const sent = envelope()
  await bus.publish([sent])
  await bus.idle()
  broken = false
  expect(await bus.deadLetters.replayAll()).toBe(1)
  await bus.idle()
  await bus.publish([sent])
  await bus.idle()
  expect(await effects()).toHaveLength(1)
})

test('a database that is away uses up no tries', async () => {
  let tries = 0
  await start(
    on([Moved, Seen], async (tx, event) => {
      tries += 1
      if (tries <= 5) throw new DatabaseUnavailable(new Error('connection refused'))
      await move(tx, event)
    }),
  )
  await bus.publish([envelope()])
  await until(() => tries === 6)
  expect(await letters()).toEqual([])
  expect(await effects()).toHaveLength(1)
})

test('half a wiring is refused', async () => {
  await expect(start(on(Moved, move))).rejects.toThrow('hears thing.seen, but scheduler has no handler')
  await expect(start(on([Moved, Seen], move), on(Moved, move))).rejects.toThrow('two handlers')
  const stranger = thing('thing.unheard')
  await expect(start(on([Moved, Seen], move), on(stranger, move))).rejects.toThrow(
    'no queue of it hears that',
  )
})

test('inbox partitions follow the time of the event and go when they are old', async () => {
  await start(on([Moved, Seen], move))
  const sent = envelope()
  await bus.publish([sent])
  await bus.idle()
  const partitions = async () =>
    (await sql<{ name: string }>`select tableoid::regclass::text as name from inbox`.execute(database.kysely))
      .rows
  expect(await partitions()).toEqual([{ name: expect.stringMatching(/^inbox_\d{8}$/) }])
  // An event from a clock that runs weeks ahead waits in the default partition until its week has one.
  await sql`
    insert into inbox values (${QUEUE}, app_now() + interval '40 days', gen_random_uuid())`.execute(
    database.kysely,
  )
  expect(await partitions()).toContainEqual({ name: 'inbox_default' })
  await testClock(place).advance(40 * 86_400_000)
  await sql`select ensure_inbox_partitions()`.execute(database.kysely)
  expect(await partitions()).not.toContainEqual({ name: 'inbox_default' })
  expect(await partitions()).toHaveLength(2)
  await testClock(place).advance(3 * 86_400_000)
  const { rows } = await sql<{ gone: number }>`select purge_inbox() as gone`.execute(database.kysely)
  expect(rows[0]?.gone).toBeGreaterThanOrEqual(1)
  expect(await partitions()).toHaveLength(1)
})
