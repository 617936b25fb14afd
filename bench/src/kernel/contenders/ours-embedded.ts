import type { Bus } from '@cloudphone/bus/bus'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { openMetrics } from '@cloudphone/observe/metrics'
import type { Contestant } from '../contestant.ts'
import { Arrivals } from './arrivals.ts'
import { auditEffects, auditOrder, type EventOrder, type EventOutcome } from './event-order.ts'
import {
  CONSUMER,
  clearConsumer,
  clearProducer,
  crash,
  fillOutbox,
  log,
  migrateConsumer,
  migrateProducer,
  openConsumer,
  openProducer,
  type Producer,
  topology,
} from './room.ts'
import { truncate } from './tables.ts'

const BUS = 'bus'
const WITHIN_MS = 120_000

export interface EmbeddedSettings {
  /** Of the writing service and the bus. */
  readonly coreUrl: string
  /** Of the hearing service. */
  readonly consumerUrl: string
  readonly poolSize: number
}

/** Outbox, relay, embedded bus, inbox: from rows that wait to effects that are committed. @public */
export function openContestant(settings: EmbeddedSettings): Contestant<EventOrder, EventOutcome> {
  const { coreUrl, consumerUrl, poolSize } = settings
  const arrivals = new Arrivals()
  let opened: { bus: Bus; producer: Producer; consumer: { close(): Promise<void> } } | undefined
  return {
    async setUp() {
      const directories = [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS]
      await migrate({ url: coreUrl, schema: BUS, directories, log })
      await migrateProducer(coreUrl)
      await migrateConsumer(consumerUrl)
    },
    async clear({ events }) {
      await truncate(coreUrl, { schema: BUS, keep: ['schema_migrations'] })
      await clearProducer(coreUrl)
      await clearConsumer(consumerUrl)
      await fillOutbox(coreUrl, events)
    },
    async open({ events }) {
      arrivals.expect(events)
      const bus = openEmbeddedBus({
        ...{ url: coreUrl, schema: BUS, log, crash, metrics: openMetrics('bus'), subscriptions: topology },
      })
      await bus.declare()
      const producer = openProducer({ url: coreUrl, poolSize, bus })
      const onEffect = () => arrivals.add()
      opened = { bus, producer, consumer: await openConsumer({ url: consumerUrl, poolSize, bus, onEffect }) }
    },
    async work({ events }) {
      const startedMs = performance.now()
      await opened?.producer.relay.start()
      return { events, elapsedMs: (await arrivals.all(WITHIN_MS)) - startedMs }
    },
    async close() {
      await opened?.producer.close()
      await opened?.consumer.close()
      await opened?.bus.close()
      opened = undefined
    },
    async audit({ events }) {
      await auditEffects(consumerUrl, CONSUMER, events)
      await auditOrder(consumerUrl, CONSUMER)
    },
  }
}
