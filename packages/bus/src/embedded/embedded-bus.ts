import type { EventEnvelope } from '@cloudphone/contracts/event'
import { type Subscription, subscriptions as wholeTopology } from '@cloudphone/contracts/topology'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { isConflict, isUnavailable } from '@cloudphone/db/errors'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { listener, type Notifier, notifier } from '@cloudphone/db/listen'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Bus, Consumer, PublishOutcome } from '../bus.ts'
import { busMetrics } from '../bus-metrics.ts'
import { getDeadLetter, listDeadLetters, queueStatistics, replayDeadLetters } from './dead-letters.ts'
import { hasWork, queuesWithDue } from './deliveries.ts'
import { openHeart } from './heart.ts'
import { consumeQueue, type QueueConsumer } from './queue-consumer.ts'
import { declareSubscriptions, insertDeliveries } from './routing.ts'

/** The folder with the tables of the embedded bus, for `migrate` in its own schema. Needs `app_now()`. */
export const EMBEDDED_BUS_MIGRATIONS = new URL('../../migrations/embedded/', import.meta.url)

export interface EmbeddedBusOptions {
  /** The database of the bus, as the role that owns its schema. */
  readonly url: DatabaseTarget
  /** The server itself, when `url` leads to a pooler. */
  readonly directUrl?: DatabaseTarget
  readonly log: Logger
  readonly metrics: Metrics
  readonly crash: CrashPoints
  /** Times the look at retries that were put off here; whether they are due is by the database's `app_now()`. */
  readonly clock?: Clock
  /** Default `bus`. */
  readonly schema?: string
  /** Default 5. */
  readonly poolSize?: number
  /** Default: the topology of this release. */
  readonly subscriptions?: readonly Subscription[]
  /** Waits before the 2nd, 3rd and 4th try. Default 1 s, 5 s, 60 s (decision 23). */
  readonly retryDelaysMs?: readonly number[]
  /** How long a frozen consumer keeps what it has in hand. A killed one does not. Default 10 s. */
  readonly consumerTtlMs?: number
  /** How often the queues are looked at without a wake-up, in real time. Default 1 s. */
  readonly pollMs?: number
}

const DEFAULT_PREFETCH = 32
const IDLE_LOOK_MS = 5

/**
 * Opens the durable bus over PostgreSQL: one for all services of a process. An event is in a queue from the commit of
 * `publish` until its consumer is done. Within a queue a delivery waits for those before it of the same aggregate, also
 * while one of them waits for its retry; it never waits for another aggregate's, so a poison event holds up nobody else.
 */
export function openEmbeddedBus(options: EmbeddedBusOptions): Bus {
  return new EmbeddedBus(options)
}

class EmbeddedBus implements Bus {
  readonly #options: EmbeddedBusOptions
  readonly #clock: Clock
  readonly #subscriptions: readonly Subscription[]
  readonly #database: Database<unknown>
  readonly #executor: Executor
  readonly #notifier: Notifier
  readonly #heart: ReturnType<typeof openHeart>
  readonly #ears: ReturnType<typeof listener>
  readonly #counts: ReturnType<typeof busMetrics>
  readonly #consumers = new Map<QueueConsumer, string>()
  readonly #eventsWithSubscribers: ReadonlySet<string>
  #closing: Promise<void> | undefined

  constructor(options: EmbeddedBusOptions) {
    const { url, log, metrics, schema = 'bus', poolSize = 5 } = options
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#subscriptions = options.subscriptions ?? wholeTopology
    this.#eventsWithSubscribers = new Set(
      this.#subscriptions.flatMap(({ events }) => events.map(({ name }) => name)),
    )
    const { directUrl } = options
    this.#database = openDatabase({ url, directUrl, schema, poolSize, applicationName: 'bus', log })
    const session = { url: this.#database.directUrl, log }
    this.#executor = holdExecutor({ ...session, applicationName: 'bus executor' })
    this.#notifier = notifier({ ...session, applicationName: 'bus notifier' })
    this.#ears = listener({
      ...session,
      applicationName: 'bus listener',
      channels: this.#queues().map(channelOf),
      onNotify: (channel) => this.#wake((queue) => channelOf(queue) === channel),
    })
    this.#heart = openHeart({
      db: this.#database.kysely,
      executor: this.#executor,
      log,
      ttlMs: options.consumerTtlMs ?? 10_000,
      onFreed: (queues) => this.#wakeQueues(queues),
      onPoll: () => this.#poll(),
      pollMs: options.pollMs ?? 1_000,
    })
    this.#counts = busMetrics(metrics, () => this.statistics())
  }

  async declare(): Promise<void> {
    await declareSubscriptions(this.#database.kysely, this.#subscriptions)
  }

  async publish(envelopes: readonly EventEnvelope[]): Promise<readonly PublishOutcome[]> {
    if (envelopes.length === 0) return []
    try {
      return await this.#insert(envelopes)
    } catch (error) {
      // Twice the same events at once, in two orders: trying again finds them there.
      if (isConflict(error)) return await this.publish(envelopes)
      if (isUnavailable(error)) throw error
      // The server refuses what one of them holds. Alone, each gets its own answer.
      const [only, ...others] = envelopes
      if (only !== undefined && others.length === 0) return [{ outcome: 'failed', error: String(error) }]
      const outcomes: PublishOutcome[] = []
      for (const envelope of envelopes) outcomes.push(...(await this.publish([envelope])))
      return outcomes
    }
  }

  async #insert(envelopes: readonly EventEnvelope[]): Promise<readonly PublishOutcome[]> {
    const { queues, heard } = await insertDeliveries(this.#database.kysely, envelopes)
    await this.#options.crash.reach('bus.after_insert')
    this.#wakeQueues(queues)
    return envelopes.map(({ type }) =>
      heard.has(type) || !this.#eventsWithSubscribers.has(type)
        ? { outcome: 'accepted' }
        : { outcome: 'unroutable' },
    )
  }

  async consume(
    queue: string,
    handle: Parameters<Bus['consume']>[1],
    { prefetch = DEFAULT_PREFETCH, together }: Parameters<Bus['consume']>[2] = {},
  ): Promise<Consumer> {
    if (this.#closing !== undefined) throw new Error(`Queue ${queue}: the bus is closed`)
    const subscription = this.#subscriptions.find((one) => one.queue === queue)
    if (subscription === undefined) throw new Error(`Queue ${queue} is not in the topology`)
    const { log, retryDelaysMs = [1_000, 5_000, 60_000] } = this.#options
    await this.#heart.start()
    const consumer = consumeQueue({
      db: this.#database.kysely,
      queue,
      critical: subscription.critical,
      handle,
      together,
      prefetch,
      retryDelaysMs,
      executor: () => this.#heart.executor,
      clock: this.#clock,
      log,
      counts: this.#counts,
    })
    this.#consumers.set(consumer, queue)
    return {
      close: async () => {
        await consumer.close()
        this.#consumers.delete(consumer)
      },
    }
  }

  readonly deadLetters: Bus['deadLetters'] = {
    list: (filter = {}) => listDeadLetters(this.#database.kysely, filter),
    get: (id) => getDeadLetter(this.#database.kysely, id),
    replay: async (id) => (await this.#replay({ id })) > 0,
    replayAll: (filter = {}) => this.#replay(filter),
  }

  async #replay(filter: { id?: string; queue?: string }): Promise<number> {
    const queues = await replayDeadLetters(this.#database.kysely, filter)
    this.#wakeQueues([...new Set(queues)])
    return queues.length
  }

  statistics(): ReturnType<Bus['statistics']> {
    return queueStatistics(this.#database.kysely, this.#queues())
  }

  async idle(): Promise<void> {
    for (;;) {
      const consumed = [...new Set(this.#consumers.values())]
      if (!(await hasWork(this.#database.kysely, consumed))) return
      await systemClock.sleep(IDLE_LOOK_MS)
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#consumers.keys()].map((consumer) => consumer.close()))
    await this.#heart.stop()
    await Promise.all([this.#ears.close(), this.#notifier.close(), this.#executor.close()])
    await this.#database.close()
  }

  #queues(): readonly string[] {
    return this.#subscriptions.map(({ queue }) => queue)
  }

  /** Here at once, elsewhere by notification. */
  #wakeQueues(queues: readonly string[]): void {
    this.#wake((queue) => queues.includes(queue))
    for (const queue of queues) this.#notifier.notify(channelOf(queue))
  }

  async #poll(): Promise<void> {
    const consumed = [...new Set(this.#consumers.values())]
    if (consumed.length === 0) return
    const due = await queuesWithDue(this.#database.kysely, consumed)
    this.#wake((queue) => due.includes(queue))
  }

  #wake(which: (queue: string) => boolean): void {
    for (const [consumer, queue] of this.#consumers) {
      if (which(queue)) consumer.wake()
    }
  }
}

/** Channel names share the limit of identifiers, 63 bytes; two queues that meet beyond it wake each other, no more. */
function channelOf(queue: string): string {
  return `bus.${queue}`.slice(0, 63)
}
