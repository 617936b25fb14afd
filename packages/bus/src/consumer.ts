/* The receiving end of every service: an event's effect and its inbox row commit together, so that an event which is
 * delivered any number of times is applied once.
 *
 * A handler that keeps a mirror of another service's rows refuses older versions in its own SQL:
 *   insert into device_mirror ... on conflict (id) do update set ..., version = excluded.version
 *   where device_mirror.version < excluded.version
 * A handler that acts on a fact always acts, guarded by what it acts on (decision 24).
 */
import type { EventDefinition } from '@cloudphone/contracts/event'
import type { ServiceName } from '@cloudphone/contracts/services'
import { type Subscription, subscriptions as wholeTopology } from '@cloudphone/contracts/topology'
import type { Database } from '@cloudphone/db/database'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Bus } from './bus.ts'
import { consumerMetrics } from './consumer-metrics.ts'
import type { EventHandler, Route } from './handler.ts'
import { keepInbox } from './inbox.ts'
import { receive } from './receive.ts'
import { receiveBatch } from './receive-batch.ts'

export { type EventHandler, on } from './handler.ts'

export interface ConsumersOptions<Schema> {
  readonly bus: Bus
  /** The service's own, with the table `inbox`. */
  readonly database: Database<Schema>
  readonly service: ServiceName
  readonly handlers: readonly EventHandler<Schema>[]
  readonly log: Logger
  readonly metrics: Metrics
  readonly crash: CrashPoints
  readonly clock?: Clock
  /** Default: the topology of this release. */
  readonly subscriptions?: readonly Subscription[]
  /** Deliveries in hand per queue. Default 600. */
  readonly prefetch?: number
}

/** Two batches that run and one that waits, so that a batch which commits finds the next one here. */
const DEFAULT_PREFETCH = 600

/** The running consumers of a service. */
export interface Consumers {
  /** Takes no more events and resolves when those in hand are committed or given back. Idempotent. */
  close(): Promise<void>
}

/**
 * Consumes every queue of the service. Throws when a queue hears an event without a handler, or a handler hears an event
 * that no queue of the service does: half a wiring would lose events silently.
 */
export async function startConsumers<Schema>(options: ConsumersOptions<Schema>): Promise<Consumers> {
  const { bus, database, service, log, crash, clock = systemClock, prefetch = DEFAULT_PREFETCH } = options
  const own = (options.subscriptions ?? wholeTopology).filter((one) => one.service === service)
  const routes = routesOf(own, options)
  const counts = consumerMetrics(options.metrics, service)
  const closing = new AbortController()
  const inbox = await keepInbox({ database, log, clock })
  const running = await Promise.all(
    own.map(({ queue }) => {
      const handlers = routes.get(queue) ?? new Map()
      const ends = { queue, database, handlers, log, counts, crash, clock, closing: closing.signal }
      return bus.consume(queue, receive(ends), { prefetch, together: receiveBatch(ends) })
    }),
  )
  let closed: Promise<void> | undefined
  const close = async (): Promise<void> => {
    closing.abort(new Error('the consumers close'))
    await Promise.all(running.map((consumer) => consumer.close()))
    await inbox.close()
  }
  return {
    close() {
      closed ??= close()
      return closed
    },
  }
}

function routesOf<Schema>(
  own: readonly Subscription[],
  { service, handlers }: ConsumersOptions<Schema>,
): ReadonlyMap<string, Route<Schema>> {
  const used = new Set<string>()
  const routes = new Map<string, Route<Schema>>()
  for (const { queue, events } of own) {
    const route = new Map<string, { definition: EventDefinition; handler: EventHandler<Schema> }>()
    for (const definition of events) {
      const hearing = handlers.filter(
        (one) =>
          (one.queue === undefined || one.queue === queue) &&
          one.definitions.some(({ name }) => name === definition.name),
      )
      const [handler, second] = hearing
      if (handler === undefined)
        throw new Error(`Queue ${queue} hears ${definition.name}, but ${service} has no handler for it`)
      if (second !== undefined)
        throw new Error(`Queue ${queue} hears ${definition.name}: ${service} has two handlers for it`)
      const key = `${handlers.indexOf(handler)}:${definition.name}`
      if (handler.queue === undefined && used.has(key)) {
        throw new Error(
          `Several queues of ${service} hear ${definition.name}: name the queue of each handler`,
        )
      }
      used.add(key)
      route.set(definition.name, { definition, handler })
    }
    routes.set(queue, route)
  }
  for (const [at, handler] of handlers.entries()) {
    const idle = handler.definitions.find(({ name }) => !used.has(`${at}:${name}`))
    if (idle !== undefined) {
      throw new Error(`${service} handles ${idle.name}, but no ${handler.queue ?? 'queue of it'} hears that`)
    }
  }
  return routes
}
