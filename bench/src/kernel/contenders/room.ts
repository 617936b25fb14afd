/* Our way from a business transaction to its effect in another service's database, over whichever bus. */
import type { Bus } from '@cloudphone/bus/bus'
import { type Consumers, on, startConsumers } from '@cloudphone/bus/consumer'
import { defineEvent } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { Subscription } from '@cloudphone/contracts/topology'
import { afterCommit, type Database, openDatabase } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { type Notifier, notifier } from '@cloudphone/db/listen'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { fact, OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import type { Outbox, OutboxRelay } from '@cloudphone/outbox/outbox'
import { openRelay } from '@cloudphone/outbox/relay'
import { sql } from 'kysely'
import { z } from 'zod'
import { makeEffectTable, moveOf, NOTE } from './event-order.ts'
import { truncate } from './tables.ts'

export const log = silentLog()
export const crash = crashPoints(undefined)
const INBOX_MIGRATIONS = new URL('../migrations/inbox/', import.meta.resolve('@cloudphone/bus/bus'))
const PREFILL_BATCH = 500
export const NOTE_PAYLOAD = { note: NOTE }

export const ThingMoved = defineEvent({
  name: 'bench.moved',
  version: 1,
  aggregate: 'thing',
  description: 'A thing of the bench moved.',
  payload: z.object({ note: z.string() }),
})

export const topology: readonly Subscription[] = [
  { queue: 'billing.bench-moved', service: 'billing', events: [ThingMoved], critical: true },
]

export const PRODUCER = 'producer'
export const CONSUMER = 'consumer'

/** The writing service: its outbox and the relay, which is not started yet. */
export interface Producer {
  readonly database: Database<unknown>
  readonly outbox: Outbox
  readonly relay: OutboxRelay
  close(): Promise<void>
}

export async function migrateProducer(url: DatabaseTarget): Promise<void> {
  const directories = [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS]
  await migrate({ url, schema: PRODUCER, directories, log })
}

export async function migrateConsumer(url: DatabaseTarget): Promise<void> {
  await migrate({ url, schema: CONSUMER, directories: [APP_NOW_MIGRATIONS, INBOX_MIGRATIONS], log })
  await makeEffectTable(url, CONSUMER)
}

export async function clearProducer(url: DatabaseTarget): Promise<void> {
  await truncate(url, { schema: PRODUCER, keep: ['schema_migrations', 'outbox_lane'] })
}

export async function clearConsumer(url: DatabaseTarget): Promise<void> {
  await truncate(url, { schema: CONSUMER, keep: ['schema_migrations'] })
}

/** Lays events into the outbox as a service would, but many a transaction. Nobody relays them yet. */
export async function fillOutbox(url: DatabaseTarget, events: number): Promise<void> {
  const database = openProducerDatabase(url, 1)
  const outbox = openOutbox({ source: 'bench', ids: systemIds, wake: () => undefined })
  try {
    for (let first = 0; first < events; first += PREFILL_BATCH) {
      const count = Math.min(PREFILL_BATCH, events - first)
      const facts = Array.from({ length: count }, (_, at) => {
        const { thing, version } = moveOf(first + at)
        return fact(ThingMoved, { aggregateId: thing, aggregateVersion: version, payload: NOTE_PAYLOAD })
      })
      await database.transaction((tx) => outbox.addMany(tx, facts))
    }
  } finally {
    await database.close()
  }
}

export function openProducer({ url, poolSize, bus }: { url: string; poolSize: number; bus: Bus }): Producer {
  const session = { url, log }
  const database = openProducerDatabase(url, poolSize)
  const executor: Executor = holdExecutor({ ...session, applicationName: 'bench executor' })
  const notify: Notifier = notifier({ ...session, applicationName: 'bench notifier' })
  const metrics = openMetrics('producer')
  const relay = openRelay({ database, bus, executor, notifier: notify, log, metrics, crash })
  return {
    database,
    relay,
    outbox: openOutbox({ source: 'bench', ids: systemIds, wake: relay.wake }),
    async close() {
      await relay.stop()
      await Promise.all([executor.close(), notify.close()])
      await database.close()
    },
  }
}

function openProducerDatabase(url: string, poolSize: number): Database<unknown> {
  return openDatabase({ url, schema: PRODUCER, poolSize, applicationName: 'bench producer', log })
}

/** The hearing service: one row as the effect of each event, in its own database. `onEffect` after each commit. */
export async function openConsumer(options: {
  url: string
  poolSize: number
  bus: Bus
  onEffect: (thing: string, version: number) => void
}): Promise<{ close(): Promise<void> }> {
  const { url, poolSize, bus, onEffect } = options
  const database = openDatabase<unknown>({
    ...{ url, schema: CONSUMER, poolSize, applicationName: 'bench consumer', log },
  })
  const handler = on(ThingMoved, async (tx, { id, subject, aggregateVersion }) => {
    await sql`insert into effect (event_id, thing, version) values (${id}, ${subject}, ${aggregateVersion})`.execute(
      tx,
    )
    afterCommit(tx, () => onEffect(subject, aggregateVersion))
  })
  const consumers: Consumers = await startConsumers({
    ...{ bus, database, service: 'billing', handlers: [handler], log, crash },
    ...{ metrics: openMetrics('consumer'), subscriptions: topology },
  })
  return {
    async close() {
      await consumers.close()
      await database.close()
    },
  }
}
