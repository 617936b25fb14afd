import type { Bus } from '@cloudphone/bus/bus'
import { closedLoop, openLoop, percentile } from '../../harness/samples.ts'
import type { Contestant } from '../contestant.ts'
import { emptyQueue } from './broker-queue.ts'
import { auditEffects, auditOrder, type Move, THINGS } from './event-order.ts'
import { openBroker, QUEUE, type RelaySettings } from './ours-relay.ts'
import {
  CONSUMER,
  clearConsumer,
  clearProducer,
  migrateConsumer,
  migrateProducer,
  NOTE_PAYLOAD,
  openConsumer,
  openProducer,
  type Producer,
  ThingMoved,
} from './room.ts'

export interface RabbitSettings extends RelaySettings {
  readonly consumerUrl: string
}

/** `capacity`: so many always between commit and effect. `steady`: at a fixed rate, whatever happens. */
export type RabbitOrder =
  | { readonly load: 'capacity'; readonly concurrency: number; readonly durationMs: number }
  | { readonly load: 'steady'; readonly perSecond: number; readonly count: number }

export interface RabbitOutcome {
  readonly events: number
  readonly elapsedMs: number
  /** From sending the COMMIT of the business transaction to the consumer's commit. */
  readonly p50Ms: number
  readonly p99Ms: number
  readonly latenciesMs: readonly number[]
}

/** A whole journey over RabbitMQ: a business transaction with its event, relay, broker, inbox and effect. @public */
export function openContestant(settings: RabbitSettings): Contestant<RabbitOrder, RabbitOutcome> {
  const { url, consumerUrl, brokerUrl, poolSize } = settings
  let opened: { bus: Bus; producer: Producer; consumer: { close(): Promise<void> } } | undefined
  const effects = new Map<string, PromiseWithResolvers<number>>()
  const versions = new Map<string, number>()
  /** One writer at a time for each thing, as a row lock would have it. */
  const lines = new Map<string, Promise<void>>()
  let next = 0
  let latenciesMs: number[] = []

  const write = async (producer: Producer, { thing, version }: Move): Promise<number> => {
    let commitMs = 0
    await producer.database.transaction(async (tx) => {
      await producer.outbox.add(tx, ThingMoved, {
        ...{ aggregateId: thing, aggregateVersion: version, payload: NOTE_PAYLOAD },
      })
      commitMs = performance.now()
    })
    return commitMs
  }
  const once = async (): Promise<void> => {
    if (opened === undefined) throw new Error('the contestant is not open')
    const { producer } = opened
    next += 1
    const thing = `thing-${next % THINGS}`
    const version = (versions.get(thing) ?? 0) + 1
    versions.set(thing, version)
    const effect = Promise.withResolvers<number>()
    effects.set(`${thing} ${version}`, effect)
    const written = (lines.get(thing) ?? Promise.resolve()).then(() => write(producer, { thing, version }))
    lines.set(
      thing,
      written.then(() => undefined),
    )
    const commitMs = await written
    latenciesMs.push((await effect.promise) - commitMs)
  }
  return {
    async setUp() {
      await migrateProducer(url)
      await migrateConsumer(consumerUrl)
      const bus = openBroker(brokerUrl)
      await bus.declare()
      await bus.close()
    },
    async clear() {
      await emptyQueue(brokerUrl, QUEUE)
      await clearProducer(url)
      await clearConsumer(consumerUrl)
    },
    async open() {
      effects.clear()
      versions.clear()
      lines.clear()
      latenciesMs = []
      const bus = openBroker(brokerUrl)
      await bus.declare()
      const onEffect = (thing: string, version: number) =>
        effects.get(`${thing} ${version}`)?.resolve(performance.now())
      const consumer = await openConsumer({ url: consumerUrl, poolSize, bus, onEffect })
      const producer = openProducer({ url, poolSize, bus })
      await producer.relay.start()
      opened = { bus, producer, consumer }
      // Connections are made and lanes taken before anything is measured.
      await closedLoop({ concurrency: 16, durationMs: 300, once })
      latenciesMs = []
    },
    async work(order) {
      const startedMs = performance.now()
      if (order.load === 'capacity') await closedLoop({ ...order, once })
      else await openLoop({ ...order, send: once })
      const elapsedMs = performance.now() - startedMs
      const [p50Ms, p99Ms] = [percentile(latenciesMs, 0.5), percentile(latenciesMs, 0.99)]
      return { events: latenciesMs.length, elapsedMs, p50Ms, p99Ms, latenciesMs }
    },
    async close() {
      await opened?.producer.close()
      await opened?.consumer.close()
      await opened?.bus.close()
      opened = undefined
    },
    async audit() {
      await auditEffects(
        consumerUrl,
        CONSUMER,
        [...versions.values()].reduce((sum, one) => sum + one, 0),
      )
      await auditOrder(consumerUrl, CONSUMER)
    },
  }
}
