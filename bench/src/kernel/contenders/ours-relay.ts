import type { Bus } from '@cloudphone/bus/bus'
import { openRabbitBus } from '@cloudphone/bus/rabbitmq/rabbit-bus'
import { openMetrics } from '@cloudphone/observe/metrics'
import { type Contestant, demandEqual } from '../contestant.ts'
import { auditQueue, emptyQueue } from './broker-queue.ts'
import type { EventOrder, EventOutcome } from './event-order.ts'
import {
  clearProducer,
  crash,
  fillOutbox,
  log,
  migrateProducer,
  openProducer,
  PRODUCER,
  type Producer,
  topology,
} from './room.ts'
import { numbers } from './tables.ts'

export interface RelaySettings {
  readonly url: string
  /** Of a virtual host of its own. */
  readonly brokerUrl: string
  readonly poolSize: number
}

export const QUEUE = 'billing.bench-moved'

export function openBroker(brokerUrl: string): Bus {
  return openRabbitBus({
    ...{ url: brokerUrl, log, crash, metrics: openMetrics('bus'), subscriptions: topology },
  })
}

/** @throws VoidRound unless the outbox says that all is published. */
export async function auditPublished(url: string, events: number): Promise<void> {
  const { published } = await numbers<'published'>(
    url,
    `select count(*) as published from ${PRODUCER}.event_outbox where status = 'published'`,
  )
  demandEqual('published rows', published, events)
}

/** Our relay: from rows that wait to rows that are marked after the broker has confirmed them. @public */
export function openContestant({
  url,
  brokerUrl,
  poolSize,
}: RelaySettings): Contestant<EventOrder, EventOutcome> {
  let opened: { bus: Bus; producer: Producer } | undefined
  return {
    async setUp() {
      await migrateProducer(url)
      const bus = openBroker(brokerUrl)
      await bus.declare()
      await bus.close()
    },
    async clear({ events }) {
      await emptyQueue(brokerUrl, QUEUE)
      await clearProducer(url)
      await fillOutbox(url, events)
    },
    async open() {
      const bus = openBroker(brokerUrl)
      await bus.declare()
      opened = { bus, producer: openProducer({ url, poolSize, bus }) }
    },
    async work({ events }) {
      const relay = opened?.producer.relay
      const startedMs = performance.now()
      await relay?.start()
      await relay?.drain()
      return { events, elapsedMs: performance.now() - startedMs }
    },
    async close() {
      await opened?.producer.close()
      await opened?.bus.close()
      opened = undefined
    },
    async audit({ events }) {
      await auditPublished(url, events)
      await auditQueue(brokerUrl, QUEUE, events)
    },
  }
}
