import { defineEvent, type EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type Database, openDatabase, type Tx } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { currentTraceparent, newTraceparent } from '@cloudphone/observe/trace'
import { type FakeClock, fakeClock } from '@cloudphone/testing/fake-clock'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import type { Bus } from './bus.ts'
import { type EventHandler, on, startConsumers } from './consumer.ts'
import { until } from './contract/support.ts'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from './embedded/embedded-bus.ts'
import { INBOX_MIGRATIONS } from './inbox.ts'

/* Events that share a transaction, and the two ways of being out of date. Every test publishes before it consumes, so that
 * what it publishes makes one batch. */

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

const log = silentLog()
const undo: (() => Promise<unknown>)[] = []
let place: TestDatabase
let busPlace: TestDatabase
let database: Database<unknown>
let bus: Bus
/** Stands still, so that on a busy machine a batch is not cut short. */
let clock: FakeClock
let metrics: ReturnType<typeof openMetrics>

beforeEach(async () => {
  ;[place, busPlace] = await Promise.all([
    createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, INBOX_MIGRATIONS], schema: 'room' }),
    createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS], schema: 'bus' }),
  ])
  database = openDatabase({ url: place.url, schema: 'room', poolSize: 5, applicationName: 'test', log })
  await sql`create table effect (position bigint generated always as identity, thing text, version integer,
    tx bigint default pg_current_xact_id()::text::bigint)`.execute(database.kysely)
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
  clock = fakeClock(new Date())
})
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
  await bus.close()
  await database.close()
  await Promise.all([place.drop(), busPlace.drop()])
})

const start = async (...handlers: EventHandler<unknown>[]): Promise<void> => {
  const ends = { bus, database, handlers, log, metrics, clock, subscriptions: topology }
  const consumers = await startConsumers({ ...ends, service: 'scheduler', crash: crashPoints('') })
  undo.push(() => consumers.close())
}

function envelope(
  subject: string,
  aggregateversion: number,
  changes: Partial<EventEnvelope> = {},
): EventEnvelope {
  return {
    specversion: '1.0',
    id: systemIds.next(),
    source: 'devices',
    type: 'thing.moved',
    subject,
    time: '2026-01-02T03:04:05.678Z',
    datacontenttype: 'application/json',
    dataschema: 'urn:cloudphone:thing.moved:v1',
    aggregatetype: 'thing',
    aggregateversion,
    data: { place: 'here' },
    ...changes,
  }
}

interface Heard {
  readonly subject: string
  readonly aggregateVersion: number
}
const note = async (tx: Tx<unknown>, { subject, aggregateVersion }: Heard): Promise<void> => {
  await sql`insert into effect (thing, version) values (${subject}, ${aggregateVersion})`.execute(tx)
}
const effects = async () =>
  (
    await sql<{ thing: string; version: number; tx: number }>`
      select thing, version, tx from effect order by position`.execute(database.kysely)
  ).rows
const inboxRows = async (): Promise<number> =>
  (await sql<{ count: number }>`select count(*) as count from inbox`.execute(database.kysely)).rows[0]
    ?.count ?? 0
const refused = (message: string): Error => Object.assign(new Error(message), { retryable: false })
const ten = (version: number) => Array.from({ length: 10 }, (_, at) => envelope(`thing ${at}`, version))

test('events of many aggregates share one transaction, each in its own trace, and all are counted', async () => {
  const sent = ten(1).map((one) => ({ ...one, traceparent: newTraceparent() }))
  await bus.publish([...sent, ...ten(2)])
  const traces = new Map<string, string | undefined>()
  await start(
    on([Moved, Seen], async (tx, event) => {
      traces.set(event.id, currentTraceparent())
      await note(tx, event)
    }),
  )
  await bus.idle()
  const rows = await effects()
  expect(rows).toHaveLength(20)
  expect(new Set(rows.map(({ tx }) => tx)).size).toBe(1)
  for (const [, own] of Map.groupBy(rows, (row) => row.thing)) {
    expect(own.map(({ version }) => version)).toEqual([1, 2])
  }
  for (const { id, traceparent } of sent) expect(traces.get(id)).toBe(traceparent)
  const text = await metrics.render()
  expect(text).toMatch(/scheduler_event_consumed_total{event_type="thing.moved".*} 20/)
  expect(text).toMatch(/scheduler_event_processing_duration_seconds_count{.*event_type="thing.moved".*} 20/)
})

test('trap 16: one poison event does not fail the batch it is in; what is behind it in its aggregate waits', async () => {
  await bus.publish([...ten(1), ...ten(2), ...ten(3)])
  await start(
    on([Moved, Seen], async (tx, event) => {
      await note(tx, event)
      if (event.subject === 'thing 4' && event.aggregateVersion === 2) throw refused('poison')
    }),
  )
  await until(async () => (await bus.deadLetters.list()).length === 1)
  await bus.idle()
  const rows = await effects()
  expect(rows).toHaveLength(29)
  expect(await inboxRows()).toBe(29)
  const own = rows.filter((row) => row.thing === 'thing 4')
  expect(own.map(({ version }) => version)).toEqual([1, 3])
  // The others still shared one.
  const others = rows.filter((row) => row.thing !== 'thing 4')
  expect(new Set(others.map(({ tx }) => tx)).size).toBe(1)
  expect(await bus.deadLetters.list()).toMatchObject([
    { attempts: 1, error: expect.stringContaining('poison') },
  ])
})

test('many poison events in one batch: the others are applied once, one by one', async () => {
  await bus.publish([...ten(1), ...ten(2)])
  await start(
    on([Moved, Seen], async (tx, event) => {
      await note(tx, event)
      if (event.aggregateVersion === 1 && event.subject < 'thing 6') throw refused('poison')
    }),
  )
  await until(async () => (await bus.deadLetters.list()).length === 6)
  await bus.idle()
  expect(await effects()).toHaveLength(14)
  expect(await inboxRows()).toBe(14)
})

test('an event that is twice in a batch, and one that was applied before, have no effect again', async () => {
  const [first, ...others] = ten(1)
  await bus.publish([first!])
  await start(on([Moved, Seen], note))
  await bus.idle()
  await bus.publish([first!, ...others])
  await bus.idle()
  expect(await effects()).toHaveLength(10)
  expect(await metrics.render()).toMatch(/scheduler_event_duplicate_total{event_type="thing.moved".*} 1/)
})

test('a batch gives up on a locked row: its event goes alone and waits, the others do not', async () => {
  await sql`create table counter (thing text primary key)`.execute(database.kysely)
  await sql`insert into counter select 'thing ' || n from generate_series(0, 9) n`.execute(database.kysely)
  const gate = Promise.withResolvers<void>()
  const locked = Promise.withResolvers<void>()
  const holder = database.transaction(async (tx) => {
    await sql`select from counter where thing = 'thing 3' for update`.execute(tx)
    locked.resolve()
    await gate.promise
  })
  await locked.promise
  await bus.publish(ten(1))
  await start(
    on([Moved, Seen], async (tx, event) => {
      await sql`select from counter where thing = ${event.subject} for update`.execute(tx)
      await note(tx, event)
    }),
  )
  await until(async () => (await effects()).length === 9)
  gate.resolve()
  await holder
  await bus.idle()
  expect((await effects()).map((row) => row.thing).at(-1)).toBe('thing 3')
  expect(await bus.deadLetters.list()).toEqual([])
})

test('trap 18: a handler that takes its time has a transaction of its own, and holds up no batch', async () => {
  await bus.publish([envelope('slow', 1, { type: 'thing.seen' }), ...ten(1)])
  const gate = Promise.withResolvers<void>()
  await start(
    on(Moved, note),
    on(
      Seen,
      async (tx, event) => {
        await gate.promise
        await note(tx, event)
      },
      { transaction: 'own' },
    ),
  )
  await until(async () => (await effects()).length === 10)
  gate.resolve()
  await bus.idle()
  const rows = await effects()
  expect(rows.at(-1)?.thing).toBe('slow')
  expect(new Set(rows.map(({ tx }) => tx)).size).toBe(2)
})

test('a batch that has lasted long enough commits what it has; the rest comes next, in order', async () => {
  await bus.publish([...ten(1), ...ten(2)])
  let tries = 0
  await start(
    on([Moved, Seen], async (tx, event) => {
      tries += 1
      await clock.advance(30)
      await note(tx, event)
    }),
  )
  await bus.idle()
  const rows = await effects()
  // Four handlers of 30 ms, and so on.
  expect([...Map.groupBy(rows, ({ tx }) => tx).values()].map((own) => own.length)[0]).toBe(4)
  // Nothing was rolled back for it.
  expect(tries).toBe(20)
  expect(await inboxRows()).toBe(20)
  for (const [, own] of Map.groupBy(rows, (row) => row.thing)) {
    expect(own.map(({ version }) => version)).toEqual([1, 2])
  }
})

test('trap 17: a mirror refuses a stale event', async () => {
  await sql`create table mirror (id text primary key, place text, version integer)`.execute(database.kysely)
  await start(
    on([Moved, Seen], async (tx, { subject, aggregateVersion, data }) => {
      await sql`
        insert into mirror (id, place, version) values (${subject}, ${data.place}, ${aggregateVersion})
        on conflict (id) do update set place = excluded.place, version = excluded.version
        where mirror.version < excluded.version`.execute(tx)
    }),
  )
  // The third before the second, as after a retry or a replay; versions 4 and 5 are not heard by this queue.
  for (const [version, where] of [
    [1, 'hall'],
    [3, 'attic'],
    [2, 'cellar'],
    [6, 'roof'],
  ] as const) {
    await bus.publish([envelope('a', version, { data: { place: where } })])
    await bus.idle()
    const { rows } = await sql`select place, version from mirror`.execute(database.kysely)
    const expected = version === 2 ? { place: 'attic', version: 3 } : { place: where, version }
    expect(rows).toEqual([expected])
  }
})

test('trap 17: a handler that acts on a fact acts on an old one too, once, guarded by what it acts on', async () => {
  await sql`create table held (allocation text primary key, released_by integer)`.execute(database.kysely)
  await sql`insert into held (allocation) values ('first'), ('second')`.execute(database.kysely)
  let ran = 0
  await start(
    on([Moved, Seen], async (tx, { aggregateVersion, data }) => {
      ran += 1
      await sql`
        update held set released_by = ${aggregateVersion}
        where allocation = ${data.place} and released_by is null`.execute(tx)
    }),
  )
  // The event that ends the second hold overtakes the one that ends the first.
  const [late, early] = [
    envelope('a', 5, { data: { place: 'first' } }),
    envelope('a', 9, { data: { place: 'second' } }),
  ]
  for (const one of [early, late, late, early]) {
    await bus.publish([one])
    await bus.idle()
  }
  const { rows } = await sql`select allocation, released_by from held order by allocation`.execute(
    database.kysely,
  )
  expect(rows).toEqual([
    { allocation: 'first', released_by: 5 },
    { allocation: 'second', released_by: 9 },
  ])
  expect(ran).toBe(2)
})
