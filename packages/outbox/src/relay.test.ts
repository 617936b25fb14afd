import type { Bus, Delivery, PublishOutcome } from '@cloudphone/bus/bus'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { defineEvent, type EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds, timeOfId } from '@cloudphone/contracts/id'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { isUniqueViolation } from '@cloudphone/db/errors'
import { holdExecutor } from '@cloudphone/db/executor'
import { listener, notifier } from '@cloudphone/db/listen'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { inTrace, newTraceparent } from '@cloudphone/observe/trace'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { holdLanes } from './lanes.ts'
import { fact, InvalidEvent, OUTBOX_MIGRATIONS, openOutbox } from './open-outbox.ts'
import type { Outbox } from './outbox.ts'
import { markPublished, outboxStatistics, unpublishedRows } from './outbox-rows.ts'
import { openRelay, outboxChannel, type RelayOptions } from './relay.ts'

const ThingMoved = defineEvent({
  name: 'thing.moved',
  version: 1,
  aggregate: 'thing',
  description: 'A thing moved.',
  payload: z.object({ note: z.string().default('by hand') }),
})
const topology: readonly Subscription[] = [
  { queue: 'devices.thing-moved', service: 'devices', events: [ThingMoved], critical: true },
]

const log = silentLog()
const undo: (() => Promise<unknown>)[] = []
let place: TestDatabase
let busPlace: TestDatabase
let database: Database<unknown>
let outbox: Outbox
let bus: Bus
/** What the bus was given, in order, by whichever relay. */
let published: EventEnvelope[]
/** Answers instead of the bus when it returns something. */
let intercept: (envelope: EventEnvelope) => PublishOutcome | undefined
let wakes: (() => void)[]

beforeEach(async () => {
  const migrations = [APP_NOW_MIGRATIONS]
  ;[place, busPlace] = await Promise.all([
    createTestDatabase({ migrations: [...migrations, OUTBOX_MIGRATIONS], schema: 'room' }),
    createTestDatabase({ migrations: [...migrations, EMBEDDED_BUS_MIGRATIONS], schema: 'bus' }),
  ])
  database = openDatabase({ url: place.url, schema: 'room', poolSize: 8, applicationName: 'test', log })
  wakes = []
  outbox = openOutbox({ source: 'devices', ids: systemIds, wake: () => wakes.map((wake) => wake()) })
  published = []
  intercept = () => undefined
  bus = observed(
    openEmbeddedBus({
      url: busPlace.url,
      log,
      metrics: openMetrics('bus'),
      crash: crashPoints(''),
      subscriptions: topology,
    }),
  )
  await bus.declare()
})
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
  await bus.close()
  await database.close()
  await Promise.all([place.drop(), busPlace.drop()])
})

/** The real bus, whose publications are seen on their way and may be turned back. */
function observed(real: Bus): Bus {
  return {
    declare: () => real.declare(),
    consume: (...args) => real.consume(...args),
    deadLetters: real.deadLetters,
    statistics: () => real.statistics(),
    idle: () => real.idle(),
    close: () => real.close(),
    async publish(envelopes) {
      const turnedBack = envelopes.map(intercept)
      const passed = envelopes.filter((_, at) => turnedBack[at] === undefined)
      published.push(...passed)
      const outcomes = [...(await real.publish(passed))]
      return turnedBack.map(
        (outcome) => outcome ?? outcomes.shift() ?? { outcome: 'failed', error: 'no answer' },
      )
    },
  }
}

/** Starts a relay as one process would have it. */
async function startRelay(options: Partial<RelayOptions> = {}) {
  const session = { url: place.url, log }
  const executor = holdExecutor({ ...session, applicationName: 'test executor' })
  const notify = notifier({ ...session, applicationName: 'test notifier' })
  const metrics = openMetrics('test')
  const relay = openRelay({
    database,
    bus,
    executor,
    notifier: notify,
    log,
    metrics,
    crash: crashPoints(''),
    ...options,
  })
  wakes.push(relay.wake)
  undo.push(async () => {
    await relay.stop()
    await executor.close()
    await notify.close()
  })
  await relay.start()
  return { relay, executor, metrics }
}

async function write(thing: string, ...versions: number[]): Promise<void> {
  await database.transaction((tx) =>
    outbox.addMany(
      tx,
      versions.map((version) =>
        fact(ThingMoved, { aggregateId: thing, aggregateVersion: version, payload: { note: 'moved' } }),
      ),
    ),
  )
}

async function until(look: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await look())) await new Promise((resolve) => setTimeout(resolve, 2))
}

const told = (thing: string): number[] =>
  published.filter(({ subject }) => subject === thing).map(({ aggregateversion }) => aggregateversion)

const statistics = () => outboxStatistics(database.kysely)

test('an event leaves as a CloudEvents envelope, with the trace in which it was written', async () => {
  const { relay } = await startRelay()
  const traceparent = newTraceparent()
  await inTrace(traceparent, () => write('a', 1))
  await relay.drain()
  const [envelope] = published
  expect(envelope).toEqual({
    specversion: '1.0',
    id: expect.any(String),
    source: 'devices',
    type: 'thing.moved',
    subject: 'a',
    time: expect.any(String),
    datacontenttype: 'application/json',
    dataschema: 'urn:cloudphone:thing.moved:v1',
    aggregatetype: 'thing',
    aggregateversion: 1,
    traceparent,
    data: { note: 'moved' },
  })
  expect(timeOfId(envelope!.id)).toBeInstanceOf(Date)
  expect(await statistics()).toEqual({ pending: 0, failed: 0, published: 1, lagSeconds: 0 })
})

test('what does not fit its definition is refused before anything is written', async () => {
  const add = (payload: object, aggregateVersion = 1) =>
    database.transaction((tx) =>
      outbox.add(tx, ThingMoved, {
        aggregateId: 'a',
        aggregateVersion,
        payload: payload as { note: string },
      }),
    )
  await expect(add({ note: 7 })).rejects.toBeInstanceOf(InvalidEvent)
  await expect(add({ note: 'x' }, 0)).rejects.toThrow('version 0 is not a positive integer')
  await add({})
  const again = await add({ note: 'x' }).catch((error: unknown) => error)
  expect(isUniqueViolation(again, 'idx_outbox_aggregate')).toBe(true)
  const { relay } = await startRelay()
  await relay.drain()
  expect(published.map(({ data }) => data)).toEqual([{ note: 'by hand' }])
})

test('trap 12: a row that commits late is not skipped', async () => {
  const { relay } = await startRelay()
  const gate = Promise.withResolvers<void>()
  const written = Promise.withResolvers<void>()
  const late = database.transaction(async (tx) => {
    await outbox.add(tx, ThingMoved, { aggregateId: 'late', aggregateVersion: 1, payload: { note: 'slow' } })
    written.resolve()
    await gate.promise
  })
  await written.promise
  // Higher positions, committed and published first.
  await write('early', 1, 2, 3)
  await relay.drain()
  expect(published.map(({ subject }) => subject)).toEqual(['early', 'early', 'early'])
  gate.resolve()
  await late
  await relay.drain()
  expect(told('late')).toEqual([1])
})

test('trap 12: two relays share the lanes, and each aggregate keeps its order under twenty writers', async () => {
  const [one, other] = [await startRelay({ ttlMs: 600 }), await startRelay({ ttlMs: 600 })]
  const split = async (): Promise<Map<string, number>> => {
    const { rows } = await sql<{ owner: string; lanes: number }>`
      select owner, count(*) as lanes from outbox_lane where owner is not null group by owner`.execute(
      database.kysely,
    )
    return new Map(rows.map(({ owner, lanes }) => [owner, lanes]))
  }
  await until(async () => [...(await split()).values()].join() === '8,8')
  expect([...(await split()).keys()].toSorted()).toEqual(
    [one.executor.current?.id, other.executor.current?.id].toSorted(),
  )
  const things = Array.from({ length: 20 }, (_, at) => `thing ${at}`)
  await Promise.all(
    things.map(async (thing) => {
      for (let version = 1; version <= 15; version += 1) await write(thing, version)
    }),
  )
  await one.relay.drain()
  for (const thing of things) expect(told(thing)).toEqual(Array.from({ length: 15 }, (_, at) => at + 1))
})

test('a relay that stops hands its lanes over at once', async () => {
  const first = await startRelay({ ttlMs: 600 })
  const second = await startRelay({ ttlMs: 600 })
  await first.relay.stop()
  await write('a', 1)
  await write('b', 1)
  await second.relay.drain()
  expect(published).toHaveLength(2)
})

test('lanes of a relay whose executor is gone are taken at once', async () => {
  const first = await startRelay()
  const id = first.executor.current?.id
  await first.executor.close()
  const { relay } = await startRelay()
  await write('a', 1)
  await relay.drain()
  expect(told('a')).toEqual([1])
  const { rows } = await sql`select from outbox_lane where owner = ${id}`.execute(database.kysely)
  expect(rows).toEqual([])
})

test('marks under an old epoch are refused', async () => {
  await write('a', 1)
  const executor = holdExecutor({ url: place.url, applicationName: 'stale', log })
  undo.push(() => executor.close())
  const owner = (await executor.held()).id
  const stale = await holdLanes(database.kysely, { owner, ttlMs: 1_500, surplus: 'keep' })
  const rows = await unpublishedRows(database.kysely, { lanes: stale.lanes, limit: 10 })
  expect(rows).toHaveLength(1)
  await sql`update outbox_lane set epoch = epoch + 1`.execute(database.kysely)
  const ids = rows.map(({ id }) => id)
  expect(await markPublished(database.kysely, ids, { owner, lanes: stale.lanes })).toBe(0)
  expect(await statistics()).toMatchObject({ pending: 1, published: 0 })
  const fresh = await holdLanes(database.kysely, { owner, ttlMs: 1_500, surplus: 'keep' })
  expect(await markPublished(database.kysely, ids, { owner, lanes: fresh.lanes })).toBe(1)
})

test('trap 13: a row is marked only after the bus has confirmed it', async () => {
  const gate = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const slow: Bus = {
    ...bus,
    async publish(envelopes) {
      asked.resolve()
      await gate.promise
      return await bus.publish(envelopes)
    },
  }
  const { relay } = await startRelay({ bus: slow })
  await write('a', 1)
  await asked.promise
  expect(await statistics()).toMatchObject({ pending: 1, published: 0 })
  gate.resolve()
  await relay.drain()
  expect(await statistics()).toMatchObject({ pending: 0, published: 1 })
})

test('a refused event holds up the later ones of its aggregate and no others, and is tried again', async () => {
  const clock = testClock(place)
  let refused = 0
  intercept = ({ subject, aggregateversion }) => {
    if (subject !== 'a' || aggregateversion !== 1 || refused === 3) return undefined
    refused += 1
    return { outcome: 'failed', error: `refused ${refused}` }
  }
  const { relay, metrics } = await startRelay({ clock })
  await write('a', 1)
  await until(async () => (await statistics()).failed === 1)
  await write('a', 2)
  await write('b', 1)
  await until(() => told('b').length === 1)
  // Doubling: 1 s, 2 s, 4 s.
  for (const [seconds, attempts] of [
    [1, 2],
    [2, 3],
  ] as const) {
    await clock.whenSleeping(1)
    await clock.advance(seconds * 1_000)
    await until(() => refused === attempts)
    expect(told('a')).toEqual([])
    await until(async () => {
      const { rows } = await sql`select from event_outbox where retry_count = ${attempts}`.execute(
        database.kysely,
      )
      return rows.length === 1
    })
  }
  await clock.whenSleeping(1)
  await clock.advance(5_000)
  await until(async () => (await statistics()).published === 3)
  expect(told('a')).toEqual([1, 2])
  await relay.drain()
  expect(await metrics.render()).toMatch(/outbox_publish_failures_total{event_type="thing.moved".*} 3/)
})

test('trap 13: a confirm is no route: an unroutable event raises the alarm, declares the topology again and then leaves', async () => {
  const clock = testClock(place)
  await sql`delete from bus.bus_subscription`.execute(
    await opened(
      openDatabase({ url: busPlace.url, schema: 'bus', poolSize: 1, applicationName: 'test', log }),
    ),
  )
  const { metrics } = await startRelay({ clock })
  await write('a', 1)
  await until(async () => (await statistics()).failed === 1)
  expect(await metrics.render()).toMatch(/outbox_unroutable_total{event_type="thing.moved".*} 1/)
  await clock.whenSleeping(1)
  await clock.advance(1_000)
  await until(async () => (await statistics()).published === 1)
})

async function opened(extra: Database<unknown>) {
  undo.push(() => extra.close())
  return extra.kysely
}

test('while the bus is away rows wait untouched; then all leave', async () => {
  let away = true
  const flaky: Bus = {
    ...bus,
    async publish(envelopes) {
      if (away) throw new Error('broker away')
      return await bus.publish(envelopes)
    },
  }
  const { relay, metrics } = await startRelay({ bus: flaky })
  await write('a', 1, 2)
  await until(async () => /outbox_bus_errors_total{.*} [2-9]/.test(await metrics.render()))
  expect(await statistics()).toMatchObject({ pending: 2, failed: 0 })
  away = false
  await relay.drain()
  expect(told('a')).toEqual([1, 2])
})

test('in batches that follow each other without a pause, nothing overtakes an event that the bus refuses', async () => {
  const clock = testClock(place)
  let refused = 0
  intercept = ({ subject, aggregateversion }) => {
    if (subject !== 'a' || aggregateversion !== 2 || refused === 1) return undefined
    refused += 1
    return { outcome: 'failed', error: 'refused' }
  }
  const versions = Array.from({ length: 7 }, (_, at) => at + 1)
  for (const version of versions) {
    await write('a', version)
    await write('b', version)
  }
  // Three rows: the refused one is in the second batch, those behind it are in every one that is selected meanwhile.
  await startRelay({ clock, batchSize: 3 })
  await until(() => told('b').length === 7)
  expect(told('a')).toEqual([1])
  await until(async () => (await statistics()).published === 8)
  await clock.whenSleeping(1)
  await clock.advance(1_000)
  await until(async () => (await statistics()).published === 14)
  expect(told('a')).toEqual(versions)
  expect(told('b')).toEqual(versions)
})

test('trap 19: the notifications of many commits are few, empty, and none of the commits’ own', async () => {
  const channel = outboxChannel('room')
  let heard = 0
  const payloads = new Set<string>()
  const ears = listener({
    url: place.url,
    channels: [channel],
    applicationName: 'ears',
    log,
    onNotify: (_, payload) => {
      heard += 1
      payloads.add(payload)
    },
  })
  undo.push(() => ears.close())
  await ears.listening()
  // Nobody notifies: whatever comes now would come from the commits themselves.
  const told = heard
  await Promise.all(Array.from({ length: 20 }, (_, at) => write(`quiet ${at}`, 1)))
  await sql`select pg_notify(${channel}, 'end')`.execute(database.kysely)
  await until(() => payloads.has('end'))
  expect(heard - told).toBe(1)
  payloads.clear()
  const notify = notifier({ url: place.url, applicationName: 'writer', log })
  undo.push(() => notify.close())
  wakes = [() => notify.notify(channel)]
  const before = heard
  // Real time: the more of it has passed, the more wake-ups are allowed; a slow machine cannot fail this.
  const startedAtMs = performance.now()
  await Promise.all(Array.from({ length: 200 }, (_, at) => write(`loud ${at}`, 1)))
  await notify.drained()
  const mostSent = 1 + Math.ceil((performance.now() - startedAtMs) / 5)
  await until(() => heard > before)
  expect(heard - before).toBeLessThanOrEqual(Math.min(mostSent, 199))
  expect([...payloads]).toEqual([''])
})

test('without a wake-up the sweep finds what was written', async () => {
  const { relay } = await startRelay({ sweepMs: 50 })
  await relay.drain()
  wakes = []
  await write('a', 1)
  await until(() => told('a').length === 1)
})

test('a commit in one process wakes the relay of another by notification', async () => {
  await startRelay({ sweepMs: 3_600_000 })
  const notify = notifier({ url: place.url, applicationName: 'writer', log })
  undo.push(() => notify.close())
  wakes = [() => notify.notify(outboxChannel('room'))]
  await write('a', 1)
  await until(() => told('a').length === 1)
})

test('published rows go after seven days, or when there are too many; others stay', async () => {
  await write('a', 1, 2, 3)
  await sql`update event_outbox set status = 'published' where aggregate_version < 3`.execute(database.kysely)
  const clean = async (call: ReturnType<typeof sql<{ gone: number }>>) =>
    (await call.execute(database.kysely)).rows[0]
  expect(await clean(sql`select cleanup_old_outbox_events() as gone`)).toEqual({ gone: 0 })
  expect(await clean(sql`select cleanup_old_outbox_events(max_rows => 1) as gone`)).toEqual({ gone: 1 })
  await testClock(place).advance(8 * 86_400_000)
  expect(await clean(sql`select cleanup_old_outbox_events() as gone`)).toEqual({ gone: 1 })
  expect(await statistics()).toMatchObject({ pending: 1, published: 0 })
})

test('from commit to consumer takes about ten milliseconds', async () => {
  const arrived = new Map<string, PromiseWithResolvers<number>>()
  await bus.consume('devices.thing-moved', async ({ envelope }: Delivery) => {
    arrived.get(envelope.subject)?.resolve(performance.now())
    return { verdict: 'done' }
  })
  await startRelay()
  const latenciesMs: number[] = []
  for (let at = 0; at < 41; at += 1) {
    const arrival = Promise.withResolvers<number>()
    arrived.set(`thing ${at}`, arrival)
    await write(`thing ${at}`, 1)
    const committedAtMs = performance.now()
    latenciesMs.push((await arrival.promise) - committedAtMs)
  }
  const medianMs = latenciesMs.toSorted((one, other) => one - other)[20]!
  // 10 ms is what we promise on an idle machine; this one may be shared.
  expect(medianMs).toBeLessThan(50)
  if (process.env.SHOW_FIGURES) process.stderr.write(`median ${medianMs.toFixed(1)} ms\n`)
})
