import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { EventEnvelope } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { clientConfig } from '@cloudphone/db/target'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { fact, OUTBOX_MIGRATIONS } from '@cloudphone/outbox/open-outbox'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Bus, Delivery, Verdict } from './bus.ts'
import type { ChildOrder } from './drill/child.ts'
import { EFFECTS_TABLE, type OpenDrillBus, type Room, startRoom, ThingMoved } from './drill/room.ts'
import { INBOX_MIGRATIONS } from './inbox.ts'

/** An adapter under test: an empty broker, and the module that opens a bus on it with the drill's topology. */
export interface BusHarness {
  readonly adapter: URL
  readonly settings: unknown
  close(): Promise<void>
}

/** What a test opened, closed in reverse while its database is still there. */
const undo: (() => Promise<void> | void)[] = []

const MOVED = 'devices.thing-moved'
const ALL = 'billing.thing'
const SEEN = 'notifications.thing-seen'
const retryDelaysMs = [20, 40, 60]
const things = ['a', 'b', 'c', 'd', 'e', 'f']
const done: Verdict = { verdict: 'done' }

/** Makes the envelope of a drill event. */
export function envelope(type: string, thing: string, version: number): EventEnvelope {
  return {
    specversion: '1.0',
    id: systemIds.next(),
    source: 'drill',
    type,
    subject: thing,
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    dataschema: `urn:cloudphone:${type}:v1`,
    aggregatetype: 'thing',
    aggregateversion: version,
    data: { note: `${thing} ${version}` },
  }
}

/** Registers what every adapter of the bus must do. */
export function busContract(name: string, makeHarness: () => Promise<BusHarness>): void {
  describe(name, () => {
    let harness: BusHarness
    beforeEach(async () => {
      harness = await makeHarness()
      return async () => {
        for (const step of undo.splice(0).reverse()) await step()
        await harness.close()
      }
    })
    const open = async (): Promise<Bus> => {
      const { openDrillBus }: { openDrillBus: OpenDrillBus } = await import(harness.adapter.href)
      const bus = await openDrillBus({
        settings: harness.settings,
        log: silentLog(),
        metrics: openMetrics('test'),
        crash: crashPoints(''),
        retryDelaysMs,
      })
      undo.push(() => bus.close())
      return bus
    }
    routing(open)
    order(open)
    failures(open)
    letters(open)
    closing(open)
    kills(() => harness)
  })
}

type Open = () => Promise<Bus>

async function declared(open: Open): Promise<Bus> {
  const bus = await open()
  await bus.declare()
  return bus
}

/** Consumes a queue into an array, each delivery answered by `answer`. */
async function collect(
  bus: Bus,
  queue: string,
  answer: (delivery: Delivery) => Verdict | Promise<Verdict> = () => done,
): Promise<Delivery[]> {
  const got: Delivery[] = []
  await bus.consume(queue, async (delivery) => {
    got.push(delivery)
    return await answer(delivery)
  })
  return got
}

const retry = (message: string): Verdict => ({ verdict: 'retry', error: new Error(message) })
const versions = (deliveries: readonly Delivery[]): number[] =>
  deliveries.map((delivery) => delivery.envelope.aggregateversion)

function routing(open: Open): void {
  test('an event reaches each queue that hears it and no other', async () => {
    const bus = await declared(open)
    const seen = envelope('thing.seen', 'a', 1)
    const moved = envelope('thing.moved', 'a', 2)
    expect(await bus.publish([seen, moved])).toEqual([{ outcome: 'accepted' }, { outcome: 'accepted' }])
    const got = await Promise.all([MOVED, ALL, SEEN].map((queue) => collect(bus, queue)))
    await bus.idle()
    expect(got.map((one) => one.map((delivery) => delivery.envelope))).toEqual([
      [moved],
      [seen, moved],
      [seen],
    ])
    expect(got[1]?.[0]).toMatchObject({ queue: ALL, attempt: 1 })
  })

  test('an event without subscribers is accepted; one whose queues are not there is unroutable', async () => {
    const bus = await open()
    const unheard = envelope('thing.unheard', 'a', 1)
    const moved = envelope('thing.moved', 'a', 2)
    expect(await bus.publish([unheard, moved])).toEqual([{ outcome: 'accepted' }, { outcome: 'unroutable' }])
    await bus.declare()
    await bus.declare()
    expect(await bus.publish([moved])).toEqual([{ outcome: 'accepted' }])
    const got = await collect(bus, MOVED)
    await bus.idle()
    expect(got).toHaveLength(1)
  })

  test('what waits in a queue survives the process that published it', async () => {
    const first = await declared(open)
    await first.publish([envelope('thing.moved', 'a', 1)])
    await first.close()
    const second = await open()
    const got = await collect(second, MOVED)
    await second.idle()
    expect(versions(got)).toEqual([1])
  })

  test('statistics tell what each queue holds', async () => {
    const bus = await declared(open)
    await bus.publish([envelope('thing.moved', 'a', 1), envelope('thing.moved', 'b', 1)])
    expect(await bus.statistics()).toContainEqual({
      queue: MOVED,
      ready: 2,
      delayed: 0,
      inFlight: 0,
      dead: 0,
    })
    await collect(bus, MOVED, () => ({ verdict: 'dead', error: new Error('no') }))
    await bus.idle()
    expect(await bus.statistics()).toContainEqual({
      queue: MOVED,
      ready: 0,
      delayed: 0,
      inFlight: 0,
      dead: 2,
    })
  })
}

function order(open: Open): void {
  test('events of one aggregate come one after the other, in order, and others do not wait for them', async () => {
    const bus = await declared(open)
    const three = ['a', 'b', 'c']
    const events = Array.from({ length: 60 }, (_, at) =>
      envelope('thing.moved', three[at % 3] ?? '', Math.floor(at / 3) + 1),
    )
    const running = new Map<string, number>()
    let most = 0
    const got = await collect(bus, MOVED, async ({ envelope: { subject } }) => {
      running.set(subject, (running.get(subject) ?? 0) + 1)
      most = Math.max(
        most,
        [...running.values()].reduce((sum, one) => sum + one, 0),
      )
      expect(running.get(subject)).toBe(1)
      await new Promise((resolve) => setImmediate(resolve))
      running.set(subject, 0)
      return done
    })
    await bus.publish(events)
    await bus.idle()
    for (const thing of three) {
      const own = got.filter((delivery) => delivery.envelope.subject === thing)
      expect(versions(own)).toEqual(Array.from({ length: 20 }, (_, at) => at + 1))
    }
    expect(most).toBe(3)
  })

  test('two processes share a queue; each event goes to one of them', async () => {
    const [one, other] = [await declared(open), await open()]
    const got = await Promise.all([collect(one, MOVED), collect(other, MOVED)])
    const events = Array.from({ length: 200 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    for (let at = 0; at < events.length; at += 20) await one.publish(events.slice(at, at + 20))
    await one.idle()
    const ids = got.flat().map((delivery) => delivery.envelope.id)
    expect(ids.toSorted()).toEqual(events.map(({ id }) => id).toSorted())
  })

  test('no more than the prefetch is unfinished at a time', async () => {
    const bus = await declared(open)
    const events = Array.from({ length: 20 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    await bus.publish(events)
    let unfinished = 0
    let most = 0
    const handle = async (): Promise<Verdict> => {
      unfinished += 1
      most = Math.max(most, unfinished)
      await new Promise((resolve) => setImmediate(resolve))
      unfinished -= 1
      return done
    }
    await bus.consume(MOVED, handle, { prefetch: 3 })
    await bus.idle()
    expect(most).toBe(3)
  })
}

function failures(open: Open): void {
  test('a failing delivery is tried four times, then it is a dead letter with its reason', async () => {
    const bus = await declared(open)
    const poison = envelope('thing.moved', 'a', 1)
    const died = Promise.withResolvers<void>()
    const got = await collect(bus, MOVED, ({ attempt }) => {
      if (attempt === 4) died.resolve()
      return retry(`attempt ${attempt} failed`)
    })
    await bus.publish([poison])
    await died.promise
    await bus.idle()
    expect(got.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4])
    const [letter, ...others] = await bus.deadLetters.list()
    expect(others).toEqual([])
    expect(letter).toMatchObject({ queue: MOVED, eventId: poison.id, eventType: 'thing.moved', attempts: 4 })
    expect(letter?.envelope).toEqual(poison)
    expect(letter?.error).toContain('attempt 4 failed')
    expect(letter?.diedAt.getTime()).toBeGreaterThanOrEqual((letter?.firstFailedAt.getTime() ?? 0) + 120)
    expect(await bus.deadLetters.get(letter?.id ?? '')).toEqual(letter)
  })

  test('a thrown error is a failed try', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, ({ attempt }) => {
      if (attempt === 1) throw new Error('stumbled')
      return done
    })
    const twice = until(() => got.length === 2)
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await twice
    await bus.idle()
    expect(got.map(({ attempt }) => attempt)).toEqual([1, 2])
    expect(await bus.deadLetters.list()).toEqual([])
  })

  test('a poison event holds up no other aggregate', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, ({ envelope: { subject } }) =>
      subject === 'poison' ? retry('always') : done,
    )
    await bus.publish([
      envelope('thing.moved', 'poison', 1),
      ...Array.from({ length: 100 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1)),
    ])
    await until(() => got.filter((delivery) => delivery.envelope.subject !== 'poison').length === 100)
    await until(async () => (await bus.deadLetters.list()).length === 1)
  })

  test('what is refused for good is a dead letter after one try', async () => {
    const bus = await declared(open)
    const got = await collect(bus, MOVED, () => ({ verdict: 'dead', error: new Error('malformed') }))
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await bus.idle()
    expect(got).toHaveLength(1)
    expect(await bus.deadLetters.list()).toMatchObject([{ attempts: 1 }])
  })

  test('an informational queue has no dead letters', async () => {
    const bus = await declared(open)
    const got = await collect(bus, SEEN, () => retry('mail server away'))
    await bus.publish([envelope('thing.seen', 'a', 1)])
    await until(() => got.length === 4)
    await bus.idle()
    expect(await bus.deadLetters.list()).toEqual([])
    expect(await bus.statistics()).toContainEqual({ queue: SEEN, ready: 0, delayed: 0, inFlight: 0, dead: 0 })
  })

  test('a released delivery comes again with all its tries', async () => {
    const bus = await declared(open)
    let released = 0
    const got = await collect(bus, MOVED, () => {
      released += 1
      return released <= 6 ? { verdict: 'release' } : done
    })
    await bus.publish([envelope('thing.moved', 'a', 1)])
    await until(() => got.length === 7)
    await bus.idle()
    expect(new Set(got.map(({ attempt }) => attempt))).toEqual(new Set([1]))
  })
}

function letters(open: Open): void {
  test('dead letters are listed in pages and put back under their own event id', async () => {
    const bus = await declared(open)
    const events = Array.from({ length: 5 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1))
    let broken = true
    const got = await collect(bus, MOVED, () =>
      broken ? { verdict: 'dead', error: new Error('bug in the handler') } : done,
    )
    await bus.publish(events)
    await bus.idle()
    const page = await bus.deadLetters.list({ queue: MOVED, limit: 3 })
    const rest = await bus.deadLetters.list({ queue: MOVED, after: page.at(-1)?.id ?? '' })
    expect([...page, ...rest].map(({ eventId }) => eventId).toSorted()).toEqual(
      events.map(({ id }) => id).toSorted(),
    )
    expect(await bus.deadLetters.list({ queue: ALL })).toEqual([])
    broken = false
    got.length = 0
    expect(await bus.deadLetters.replay(page[0]?.id ?? '')).toBe(true)
    expect(await bus.deadLetters.replay(page[0]?.id ?? '')).toBe(false)
    await bus.idle()
    expect(got).toMatchObject([{ attempt: 1, envelope: { id: page[0]?.eventId } }])
    expect(await bus.deadLetters.replayAll({ queue: MOVED })).toBe(4)
    await bus.idle()
    expect(got.map((delivery) => delivery.envelope.id).toSorted()).toEqual(
      events.map(({ id }) => id).toSorted(),
    )
    expect(await bus.deadLetters.list()).toEqual([])
  })
}

function closing(open: Open): void {
  test('a closing consumer finishes what runs and leaves the rest to others', async () => {
    const bus = await declared(open)
    const running = Promise.withResolvers<void>()
    const gate = Promise.withResolvers<void>()
    const first: Delivery[] = []
    const consumer = await bus.consume(MOVED, async (delivery) => {
      first.push(delivery)
      running.resolve()
      await gate.promise
      return done
    })
    await bus.publish([1, 2, 3].map((version) => envelope('thing.moved', 'a', version)))
    await running.promise
    const closed = consumer.close()
    gate.resolve()
    await closed
    expect(versions(first)).toEqual([1])
    const second = await collect(await open(), MOVED)
    await until(() => second.length === 2)
    expect(versions(second)).toEqual([2, 3])
  })
}

function kills(harness: () => BusHarness): void {
  let service: TestDatabase
  beforeEach(async () => {
    service = await createTestDatabase({
      migrations: [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS],
      schema: 'room',
    })
    await query(service, EFFECTS_TABLE)
  })
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step()
    await service.drop()
  })

  const room = async (): Promise<Room> => {
    const { openDrillBus }: { openDrillBus: OpenDrillBus } = await import(harness().adapter.href)
    const options = { log: silentLog(), crash: crashPoints('') }
    const bus = await openDrillBus({
      ...options,
      settings: harness().settings,
      metrics: openMetrics('test'),
      retryDelaysMs,
    })
    const started = await startRoom({ ...options, bus, url: service.url, schema: service.schema })
    undo.push(() => started.close())
    return started
  }

  test.each([
    'outbox.after_claim=kill',
    'bus.after_insert@2=kill',
    'outbox.after_publish@2=kill',
    'outbox.after_mark=kill',
    'consumer.before_tx@3=kill',
    'consumer.in_tx@5=kill',
    'consumer.after_commit@7=kill',
  ])('after %s each event has its effect in each queue exactly once, in order', async (crash) => {
    const child = await startChild({
      adapter: harness().adapter.href,
      settings: harness().settings,
      url: service.url,
      schema: service.schema,
      crash,
    })
    const survivor = await room()
    let signal: unknown
    child.once('exit', (_code, by) => {
      signal = by
    })
    // While both live, until the one has died, and twice afterwards.
    let version = 0
    for (let afterwards = 0; afterwards < 2; ) {
      version += 1
      const payload = { note: 'moved' }
      await survivor.database.transaction((tx) =>
        survivor.outbox.addMany(
          tx,
          things.map((aggregateId) => fact(ThingMoved, { aggregateId, aggregateVersion: version, payload })),
        ),
      )
      // Not all in one batch, or a point would be passed once only.
      await survivor.relay.drain()
      if (signal !== undefined) afterwards += 1
    }
    expect(signal).toBe('SIGKILL')
    const effects = await until(async () => {
      const rows = await query<Effect>(service, 'select queue, thing, version from effect order by position')
      return rows.length >= things.length * 2 * version ? rows : undefined
    })
    const counts = Map.groupBy(effects, ({ queue, thing }) => `${queue} ${thing}`)
    expect(counts.size).toBe(things.length * 2)
    const inOrder = Array.from({ length: version }, (_, at) => at + 1)
    for (const own of counts.values()) expect(own.map((effect) => effect.version)).toEqual(inOrder)
  })
}

interface Effect {
  readonly queue: string
  readonly thing: string
  readonly version: number
}

async function startChild(order: ChildOrder) {
  const script = fileURLToPath(new URL('./drill/child.ts', import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(order)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  undo.push(() => {
    child.kill('SIGKILL')
  })
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error('the child did not start'))),
  ])
  return child
}

async function query<Row extends pg.QueryResultRow>(database: TestDatabase, text: string): Promise<Row[]> {
  const client = new pg.Client(clientConfig(database.url, 'test'))
  await client.connect()
  try {
    return (await client.query<Row>(text)).rows
  } finally {
    await client.end()
  }
}

/** Resolves with the first answer that is neither false nor undefined; the test's own time limit ends it otherwise. */
export async function until<Answer>(
  look: () => Answer | Promise<Answer>,
): Promise<Exclude<Answer, false | undefined>> {
  for (;;) {
    const answer = await look()
    if (answer !== false && answer !== undefined) return answer as Exclude<Answer, false | undefined>
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}
