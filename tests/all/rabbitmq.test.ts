import type { Bus, Delivery, Verdict } from '@cloudphone/bus/bus'
import { busContract } from '@cloudphone/bus/bus.contract'
import { envelope } from '@cloudphone/bus/contract/support'
import { drillTopology } from '@cloudphone/bus/drill/room'
import { openRabbitBus, type RabbitBusOptions } from '@cloudphone/bus/rabbitmq/rabbit-bus'
import { DeleteDevice } from '@cloudphone/contracts/api/devices-api'
import type { EventEnvelope } from '@cloudphone/contracts/event'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { openMetrics } from '@cloudphone/observe/metrics'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { ask, createPhone, newPerson, operate } from '../src/door.ts'
import { openPlatform, testLog } from '../src/platform.ts'
import { type RabbitNode, startRabbitNode } from '../src/rabbitmq.ts'
import { openTcpProxy } from '../src/tcp-proxy.ts'
import { until } from '../src/until.ts'

const MOVED = 'devices.thing-moved'
const SEEN = 'notifications.thing-seen'
const done: Verdict = { verdict: 'done' }

let node: RabbitNode
let unused: string[] = []
let made = 0

beforeAll(async () => {
  node = await startRabbitNode()
})
afterAll(() => node.close())

/** The URL of a virtual host that nobody has used. */
async function emptyHost(): Promise<string> {
  if (unused.length === 0) {
    const names = Array.from({ length: 12 }, () => `test ${++made}`)
    unused = [...(await node.virtualHosts(names))]
  }
  return unused.shift() ?? ''
}

const hostOf = (url: string): string => decodeURIComponent(new URL(url).pathname.slice(1))

busContract('RabbitMQ bus', async () => ({
  adapter: new URL('../../packages/bus/src/rabbitmq/drill-bus.ts', import.meta.url),
  settings: { url: await emptyHost() },
  close: async () => undefined,
}))

describe('RabbitMQ bus, beyond the contract', () => {
  const undo: (() => Promise<void> | void)[] = []
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step()
  })

  const open = (url: string, options: Partial<RabbitBusOptions> = {}): Bus => {
    const bus = openRabbitBus({
      url,
      log: testLog(),
      metrics: openMetrics('test'),
      crash: crashPoints(''),
      subscriptions: drillTopology,
      retryDelaysMs: [20, 40, 60],
      heartbeatSeconds: 1,
      connectTimeoutMs: 2_000,
      ...options,
    })
    undo.push(() => bus.close())
    return bus
  }
  const collect = async (bus: Bus, queue = MOVED): Promise<Delivery[]> => {
    const got: Delivery[] = []
    await bus.consume(queue, async (delivery) => {
      got.push(delivery)
      return done
    })
    return got
  }
  const moved = (thing: string, version: number) => envelope('thing.moved', thing, version)
  /** As the outbox does: the same events again until the bus has taken them all. */
  const publishUntilTaken = (bus: Bus, events: readonly EventEnvelope[]) =>
    until(
      'the bus to take events',
      async () => {
        const outcomes = await bus.publish(events).catch(() => [])
        if (outcomes.some(({ outcome }) => outcome === 'unroutable'))
          await bus.declare().catch(() => undefined)
        return outcomes.length === events.length && outcomes.every(({ outcome }) => outcome === 'accepted')
      },
      60_000,
    )
  const firsts = (got: readonly Delivery[]): number[] => [
    ...new Set(got.map((delivery) => delivery.envelope.aggregateversion)),
  ]
  const upTo = (last: number): number[] => Array.from({ length: last }, (_, at) => at + 1)

  test('a broker that is killed and comes back has lost nothing and mixed up nothing', async () => {
    const bus = open(await emptyHost())
    await bus.declare()
    await bus.publish([envelope('thing.seen', 'dead', 1)])
    const dying = await bus.consume('billing.thing', async () => ({
      verdict: 'dead',
      error: new Error('no'),
    }))
    await until('a dead letter', async () => (await bus.deadLetters.list()).length === 1)
    await dying.close()
    const got = await collect(bus)
    const taken = Promise.withResolvers<void>()
    const publishing = (async () => {
      for (const version of upTo(200)) {
        await publishUntilTaken(bus, [moved('a', version)])
        if (version === 50) taken.resolve()
      }
    })()
    await taken.promise
    await node.kill()
    await node.start()
    await publishing
    await until('all deliveries', async () => firsts(got).length === 200)
    expect(firsts(got)).toEqual(upTo(200))
    expect(await bus.deadLetters.list()).toMatchObject([{ queue: 'billing.thing' }])
  })

  test('a retry that waits survives the broker', async () => {
    const bus = open(await emptyHost(), { retryDelaysMs: [3_000] })
    await bus.declare()
    const attempts: number[] = []
    await bus.consume(MOVED, async ({ attempt }) => {
      attempts.push(attempt)
      return attempt === 1 ? { verdict: 'retry', error: new Error('not yet') } : done
    })
    await bus.publish([moved('a', 1)])
    await until('the retry to be put off', async () =>
      (await bus.statistics()).some(({ delayed, inFlight }) => delayed === 1 && inFlight === 0),
    )
    await node.kill()
    await node.start()
    await until('the second try', async () => attempts.includes(2))
    expect(attempts).toEqual([1, 2])
  })

  test('a queue deleted under its consumer is there again, with its consumer', async () => {
    const url = await emptyHost()
    const bus = open(url)
    await bus.declare()
    const got = await collect(bus)
    await publishUntilTaken(bus, [moved('a', 1)])
    await until('the first delivery', async () => got.length === 1)
    await node.control('delete_queue', '-p', hostOf(url), MOVED)
    let version = 1
    await until('a later delivery', async () => {
      version += 1
      await publishUntilTaken(bus, [moved('a', version)])
      return got.length > 1
    })
  })

  test('an event whose queues were deleted is unroutable, until they are declared again', async () => {
    const url = await emptyHost()
    const bus = open(url)
    await bus.declare()
    await publishUntilTaken(bus, [moved('a', 1)])
    for (const { queue } of drillTopology) await node.control('delete_queue', '-p', hostOf(url), queue)
    expect(await bus.publish([moved('a', 1)])).toEqual([{ outcome: 'unroutable' }])
    await bus.declare()
    expect(await bus.publish([moved('a', 1)])).toEqual([{ outcome: 'accepted' }])
  })

  test('a broker that lost everything gets its topology back', async () => {
    const url = await emptyHost()
    const bus = open(url)
    await bus.declare()
    const got = await collect(bus)
    await publishUntilTaken(bus, [moved('a', 1)])
    await until('the first delivery', async () => got.length === 1)
    await node.control('delete_vhost', hostOf(url))
    await expect(bus.publish([moved('a', 2)])).rejects.toThrow(/RabbitMQ|closed|vhost/i)
    await node.virtualHosts([hostOf(url)])
    await publishUntilTaken(bus, [moved('a', 3)])
    await until('the next delivery', async () => firsts(got).includes(3))
  })

  test('a broker short of memory refuses events at once; what it holds is still consumed', async () => {
    const bus = open(await emptyHost())
    await bus.declare()
    await bus.publish(upTo(20).map((version) => moved('a', version)))
    undo.push(async () => void (await node.control('set_vm_memory_high_watermark', '0.4')))
    await node.control('set_vm_memory_high_watermark', 'absolute', '1')
    // The broker tells a connection only when it publishes; from then on nothing is sent.
    await expect(bus.publish([moved('b', 1)])).rejects.toThrow(/takes no messages at present/)
    await expect(bus.publish([moved('b', 1)])).rejects.toThrow(/takes no messages at present/)
    const got = await collect(bus)
    await until('what it held', async () => got.length === 20)
    await node.control('set_vm_memory_high_watermark', '0.4')
    await publishUntilTaken(bus, [moved('b', 1)])
    await until('the event after the alarm', async () => got.some((one) => one.envelope.subject === 'b'))
  })

  test('a connection that has gone silent is noticed on both sides: another consumer takes over, and it comes back', async () => {
    const url = await emptyHost()
    const proxy = await openTcpProxy(node.port)
    undo.push(() => proxy.close())
    const through = new URL(url)
    through.port = String(proxy.port)
    const cut = open(through.href)
    await cut.declare()
    const [first, other] = [await collect(cut), open(url)]
    await cut.publish([moved('a', 1)])
    await until('the first delivery', async () => first.length === 1)
    const second = await collect(other)
    proxy.silence()
    // Real time: the broker's heartbeats take no clock. TCP alone would need a quarter of an hour.
    const startedAtMs = performance.now()
    await other.publish([moved('a', 2)])
    await expect(cut.publish([moved('a', 3)])).rejects.toThrow()
    await until('the other consumer', async () => second.length === 1)
    // Two heartbeats of a second, and the turn in which they are counted.
    expect(performance.now() - startedAtMs).toBeLessThan(8_000)
    proxy.heal()
    await publishUntilTaken(cut, [moved('a', 3)])
    await until('its event', async () => firsts(second).length === 2)
    expect(firsts(second)).toEqual([2, 3])
  })

  test('what a consumer had in hand when it was cut off comes again in its order', async () => {
    const url = await emptyHost()
    const proxy = await openTcpProxy(node.port)
    const through = new URL(url)
    through.port = String(proxy.port)
    const bus = open(url)
    await bus.declare()
    const gate = Promise.withResolvers<Verdict>()
    const inHand = Promise.withResolvers<void>()
    const hold = async (): Promise<Verdict> => {
      inHand.resolve()
      return await gate.promise
    }
    await open(through.href).consume(MOVED, hold, { prefetch: 100 })
    undo.push(() => gate.resolve(done))
    await bus.publish(upTo(100).map((version) => moved('a', version)))
    await inHand.promise
    const got = await collect(bus)
    await proxy.close()
    await until('all of them', async () => got.length === 100)
    expect(got.map((delivery) => delivery.envelope.aggregateversion)).toEqual(upTo(100))
  })

  test('what its consumers give back again and again the broker buries, informational too; replayed, it is whole', async () => {
    const bus = open(await emptyHost())
    await bus.declare()
    const seen = envelope('thing.seen', 'a', 1)
    await bus.publish([seen])
    const consumer = await bus.consume(SEEN, async () => ({ verdict: 'release' }))
    const [letter] = await until('the dead letter', async () => {
      const letters = await bus.deadLetters.list({ queue: SEEN })
      return letters.length === 1 && letters
    })
    await consumer.close()
    expect(letter).toMatchObject({ eventId: seen.id, eventType: 'thing.seen', envelope: seen })
    expect(letter?.error).toContain('20 times')
    expect(Math.abs((letter?.diedAt.getTime() ?? 0) - Date.now())).toBeLessThan(30_000)
    expect(await bus.deadLetters.get(letter?.id ?? '')).toEqual(letter)
    const got = await collect(bus, SEEN)
    expect(await bus.deadLetters.replay(letter?.id ?? '')).toBe(true)
    await until('the replayed event', async () => got.length === 1)
    expect(got[0]).toMatchObject({ attempt: 1, envelope: seen })
  })

  test('many may look at the dead letters at once, and as often as they like: none is lost, their order stays', async () => {
    const url = await emptyHost()
    const [bus, other] = [open(url), open(url)]
    await bus.declare()
    const died: number[] = []
    await bus.consume(MOVED, async ({ envelope: { aggregateversion } }) => {
      died.push(aggregateversion)
      return { verdict: 'dead', error: new Error('é'.repeat(5_000)) }
    })
    await bus.publish(upTo(50).map((version) => moved('a', version)))
    await until('50 dead letters', async () => (await bus.deadLetters.list({ limit: 100 })).length === 50)
    for (const _ of upTo(15)) {
      const looks = [bus, other, bus, other].map((one) => one.deadLetters.list({ queue: MOVED }))
      for (const letters of await Promise.all(looks)) expect(letters).toHaveLength(50)
    }
    const eventIds = (await bus.deadLetters.list()).map(({ eventId }) => eventId)
    expect(new Set(eventIds).size).toBe(50)
    // No more than there were, although each dies again.
    expect(await other.deadLetters.replayAll()).toBe(50)
    await until('all to have died twice', async () => died.length === 100)
    expect(died).toEqual([...upTo(50), ...upTo(50)])
  })

  test('a broker that is not there, or knows no such virtual host, is named with the reason', async () => {
    const away = open('amqp://guest:guest@127.0.0.1:9', { connectTimeoutMs: 300 })
    await expect(away.declare()).rejects.toThrow(
      'RabbitMQ at 127.0.0.1:9, virtual host /cloudphone: connect ECONNREFUSED',
    )
    const nowhere = open(`amqp://guest:guest@127.0.0.1:${node.port}`, { connectTimeoutMs: 1_000 })
    await expect(nowhere.declare()).rejects.toThrow(/vhost \/cloudphone not found/)
  })
})

test('the platform works over RabbitMQ: a phone is created, its services hear of it, no dead letters', async () => {
  const platform = await openPlatform({ RABBITMQ_URL: await emptyHost() })
  try {
    const heard = 'select 1 from billing.inbox where consumer = $1'
    const { user, client } = await newPerson(platform.client)
    const phone = await createPhone(client)
    expect(phone).toMatchObject({ status: 'RUNNING', userId: user.id })
    await until('billing to hear that it started', async () => {
      const rows = await platform.books.query(heard, ['billing-service.device-started'], 'cloudphone_billing')
      return rows.length > 0
    })
    const { status } = await operate(client, DeleteDevice, phone.id)
    expect(status).toBe('COMPLETED')
    await until('billing to hear that it is gone', async () => {
      const rows = await platform.books.query(heard, ['billing.device-deleted'], 'cloudphone_billing')
      return rows.length > 0
    })
    const letters = await ask(platform.client, 'GET', '/api/dead-letters')
    expect(letters).toMatchObject({ status: 200, body: { data: [] } })
  } finally {
    await platform.close()
  }
})
