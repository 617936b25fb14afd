/* A small service for drills: everything between a business transaction and its effect in another one, on a real
 * database and a real bus, so that it can be killed anywhere. Run by bus.contract.ts, in its own process and in others. */
import { defineEvent, type EventDefinition } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { notifier } from '@cloudphone/db/listen'
import type { DatabaseTarget } from '@cloudphone/db/target'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import { type Metrics, openMetrics } from '@cloudphone/observe/metrics'
import { openOutbox } from '@cloudphone/outbox/open-outbox'
import type { Outbox, OutboxRelay } from '@cloudphone/outbox/outbox'
import { openRelay } from '@cloudphone/outbox/relay'
import { sql } from 'kysely'
import { z } from 'zod'
import type { Bus } from '../bus.ts'
import { type Consumers, on, startConsumers } from '../consumer.ts'

function drillEvent(name: string): EventDefinition<string, z.ZodObject<{ note: z.ZodString }>> {
  return defineEvent({
    name,
    version: 1,
    aggregate: 'thing',
    description: 'Something happened to a thing of a drill.',
    payload: z.object({ note: z.string() }),
  })
}

export const ThingMoved = drillEvent('thing.moved')
const ThingSeen = drillEvent('thing.seen')

/** Two queues hear of moves, one of them and a third also of sightings; nobody hears a `thing.unheard`. */
export const drillTopology: readonly Subscription[] = [
  { queue: 'devices.thing-moved', service: 'devices', events: [ThingMoved], critical: true },
  { queue: 'billing.thing', service: 'billing', events: [ThingMoved, ThingSeen], critical: true },
  { queue: 'notifications.thing-seen', service: 'notifications', events: [ThingSeen], critical: false },
]

/** The effects of the drill's consumers. No unique key: an effect that happens twice shall show. */
export const EFFECTS_TABLE = `create table effect (
  position bigint generated always as identity, queue text not null, event_id uuid not null, thing text not null,
  version integer not null)`

/** How a drill opens the bus under test: exported as `openDrillBus` by a module of each adapter, imported in the child too. */
export type OpenDrillBus = (options: {
  settings: unknown
  log: Logger
  metrics: Metrics
  crash: CrashPoints
  retryDelaysMs: readonly number[]
  consumerTtlMs?: number
}) => Promise<Bus>

export interface RoomOptions {
  readonly bus: Bus
  /** A database with outbox, inbox and the table of effects. */
  readonly url: DatabaseTarget
  readonly schema: string
  readonly log: Logger
  readonly crash: CrashPoints
}

export interface Room {
  readonly database: Database<unknown>
  readonly outbox: Outbox
  readonly relay: OutboxRelay
  close(): Promise<void>
}

/** Starts relay and consumers of the drill's services on one database. */
export async function startRoom({ bus, url, schema, log, crash }: RoomOptions): Promise<Room> {
  const session = { url, log }
  const database = openDatabase({ ...session, schema, poolSize: 5, applicationName: 'drill' })
  const executor = holdExecutor({ ...session, applicationName: 'drill executor' })
  const notify = notifier({ ...session, applicationName: 'drill notifier' })
  const metrics = openMetrics('drill')
  const relay = openRelay({ database, bus, executor, notifier: notify, log, metrics, crash })
  const outbox = openOutbox({ source: 'drill', ids: systemIds, wake: relay.wake })
  await bus.declare()
  const consumers: Consumers[] = []
  for (const { service, queue, events } of drillTopology) {
    const handler = on(events, async (tx, event) => {
      await sql`
        insert into effect (queue, event_id, thing, version)
        values (${queue}, ${event.id}, ${event.subject}, ${event.aggregateVersion})`.execute(tx)
    })
    consumers.push(
      await startConsumers({
        bus,
        database,
        service,
        handlers: [handler],
        log,
        metrics,
        crash,
        subscriptions: drillTopology,
      }),
    )
  }
  await relay.start()
  return {
    database,
    outbox,
    relay,
    async close() {
      await relay.stop()
      await Promise.all(consumers.map((one) => one.close()))
      await bus.close()
      await Promise.all([executor.close(), notify.close()])
      await database.close()
    },
  }
}
