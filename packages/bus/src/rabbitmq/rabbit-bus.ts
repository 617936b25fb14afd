import type { EventEnvelope } from '@cloudphone/contracts/event'
import { type Subscription, subscriptions as wholeTopology } from '@cloudphone/contracts/topology'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Bus, Consumer, PublishOutcome, QueueStatistics } from '../bus.ts'
import { busMetrics } from '../bus-metrics.ts'
import { isNotFound, openDeadLetters } from './dead-letters.ts'
import { type Link, openLink } from './link.ts'
import { bodyOf } from './message.ts'
import { openPublisher, type Publisher } from './publisher.ts'
import { consumeQueue, type QueueConsumer } from './queue-consumer.ts'
import { openSettlement, type Settlement } from './settlement.ts'
import { deadQueueOf, declareExchanges, declareTopology, EVENTS_EXCHANGE } from './topology.ts'

export interface RabbitBusOptions {
  /** `amqp://user:password@host:5672`, or `amqps:`; virtual host `/cloudphone` unless its path names another. */
  readonly url: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly crash: CrashPoints
  readonly clock?: Clock
  /** Default: the topology of this release. */
  readonly subscriptions?: readonly Subscription[]
  /** Waits before the 2nd, 3rd and 4th try. Default 1 s, 5 s, 60 s (decision 23). Each is a queue on the broker. */
  readonly retryDelaysMs?: readonly number[]
  /** A connection over which nothing comes for twice as long is given up. Default 5 s. */
  readonly heartbeatSeconds?: number
  /** How long `declare`, `consume` and `publish` wait for a broker that is away. Default 20 s. */
  readonly connectTimeoutMs?: number
  /** How long a publish waits for the broker's word. Default 30 s. */
  readonly confirmTimeoutMs?: number
}

const DEFAULT_PREFETCH = 32
const IDLE_LOOK_MS = 5

/**
 * Opens the bus over RabbitMQ (3.10 or newer): one for all services of a process. Every queue is a quorum queue with a
 * single active consumer: of several processes one consumes it, in order, and another takes over when that one ends. So
 * order within an aggregate holds over processes, at the price that more processes do not make one queue faster. A
 * delivery that is tried again is overtaken by the next of its aggregate.
 */
export function openRabbitBus(options: RabbitBusOptions): Bus {
  return new RabbitBus(options)
}

class RabbitBus implements Bus {
  readonly #options: RabbitBusOptions
  readonly #clock: Clock
  readonly #subscriptions: readonly Subscription[]
  readonly #retryDelaysMs: readonly number[]
  readonly #heard: ReadonlySet<string>
  /** A broker short of memory stops a connection that publishes; acknowledgements must not wait behind it. */
  readonly #outward: Link
  readonly #inward: Link
  readonly #publisher: Publisher
  readonly #settlement: Settlement
  readonly #consumers = new Map<QueueConsumer, string>()
  readonly deadLetters: Bus['deadLetters']
  #declared = false
  #closing: Promise<void> | undefined

  constructor(options: RabbitBusOptions) {
    const { url, log, heartbeatSeconds = 5, connectTimeoutMs = 20_000, clock = systemClock } = options
    this.#options = options
    this.#clock = clock
    this.#subscriptions = options.subscriptions ?? wholeTopology
    this.#retryDelaysMs = options.retryDelaysMs ?? [1_000, 5_000, 60_000]
    this.#heard = new Set(this.#subscriptions.flatMap(({ events }) => events.map(({ name }) => name)))
    const line = { url, log, clock, heartbeatSeconds, connectTimeoutMs }
    this.#outward = openLink({ ...line, name: 'publisher' })
    this.#inward = openLink({ ...line, name: 'consumer' })
    this.#publisher = openPublisher({
      link: this.#outward,
      clock,
      // The broker may have been replaced by an empty one. Before the first `declare`, queues are none of our business.
      prepare: (channel) =>
        this.#declared ? declareTopology(channel, this.#topology) : declareExchanges(channel),
      confirmTimeoutMs: options.confirmTimeoutMs ?? 30_000,
    })
    this.#settlement = openSettlement({
      publisher: this.#publisher,
      declare: () => this.declare(),
      retryDelaysMs: this.#retryDelaysMs,
      clock,
      log,
      counts: busMetrics(options.metrics, () => this.statistics()),
    })
    const queues = this.#subscriptions.map(({ queue }) => queue)
    this.deadLetters = openDeadLetters({ link: this.#inward, publisher: this.#publisher, queues, clock })
  }

  get #topology() {
    return { subscriptions: this.#subscriptions, retryDelaysMs: this.#retryDelaysMs }
  }

  async declare(): Promise<void> {
    const channel = await this.#inward.acquire()
    channel.on('error', () => undefined)
    try {
      await declareTopology(channel, this.#topology)
      this.#declared = true
    } finally {
      await channel.close()
    }
  }

  async publish(envelopes: readonly EventEnvelope[]): Promise<readonly PublishOutcome[]> {
    const outcomes = await this.#publisher.send(
      envelopes.map((envelope) => ({
        exchange: EVENTS_EXCHANGE,
        routingKey: envelope.type,
        mandatory: this.#heard.has(envelope.type),
        eventId: envelope.id,
        eventType: envelope.type,
        headers: {},
        body: bodyOf(envelope),
      })),
    )
    if (envelopes.length > 0) await this.#options.crash.reach('bus.after_insert')
    return outcomes
  }

  async consume(
    queue: string,
    handle: Parameters<Bus['consume']>[1],
    { prefetch = DEFAULT_PREFETCH, together }: Parameters<Bus['consume']>[2] = {},
  ): Promise<Consumer> {
    if (this.#closing !== undefined) throw new Error(`Queue ${queue}: the bus is closed`)
    const subscription = this.#subscriptions.find((one) => one.queue === queue)
    if (subscription === undefined) throw new Error(`Queue ${queue} is not in the topology`)
    const consumer = await consumeQueue({
      link: this.#inward,
      subscription,
      handle,
      together,
      prefetch,
      retryDelaysMs: this.#retryDelaysMs,
      settlement: this.#settlement,
      clock: this.#clock,
      log: this.#options.log,
    })
    this.#consumers.set(consumer, queue)
    return {
      close: async () => {
        await consumer.close()
        this.#consumers.delete(consumer)
      },
    }
  }

  /** Ready and dead as the broker has them; in flight and delayed are this process's share, which AMQP does not tell. */
  async statistics(): Promise<readonly QueueStatistics[]> {
    const statistics: QueueStatistics[] = []
    for (const { queue } of this.#subscriptions) {
      const [ready, dead] = [await this.#count(queue), await this.#count(deadQueueOf(queue))]
      const own = [...this.#consumers].filter(([, name]) => name === queue)
      const inFlight = own.reduce((sum, [consumer]) => sum + consumer.inHand, 0)
      statistics.push({ queue, ready, delayed: this.#settlement.delayed(queue), inFlight, dead })
    }
    return statistics
  }

  async #count(queue: string): Promise<number> {
    const channel = await this.#inward.acquire()
    channel.on('error', () => undefined)
    try {
      return (await channel.queueDeclare({ queue, passive: true })).messageCount
    } catch (error) {
      if (!isNotFound(error)) throw error
      if (this.#declared) {
        this.#options.log.error({ event: 'bus.queue_missing', queue })
        await this.declare()
      }
      return 0
    } finally {
      await channel.close()
    }
  }

  async idle(): Promise<void> {
    for (;;) {
      if (!this.#settlement.isOverdue() && (await this.#areIdle())) return
      await systemClock.sleep(IDLE_LOOK_MS)
    }
  }

  async #areIdle(): Promise<boolean> {
    for (const consumer of this.#consumers.keys()) if (!(await consumer.isIdle())) return false
    return true
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#consumers.keys()].map((consumer) => consumer.close()))
    await Promise.all([this.#publisher.close(), this.#inward.close(), this.#outward.close()])
  }
}
