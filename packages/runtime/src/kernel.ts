import { type EventHandler, startConsumers } from '@cloudphone/bus/consumer'
import { INBOX_MIGRATIONS } from '@cloudphone/bus/inbox'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { notifier } from '@cloudphone/db/listen'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import type { Leases } from '@cloudphone/lease/lease'
import { LEASE_MIGRATIONS, openLeases } from '@cloudphone/lease/open-leases'
import { OUTBOX_MIGRATIONS, openOutbox } from '@cloudphone/outbox/open-outbox'
import { openRelay } from '@cloudphone/outbox/relay'
import { openSagas, SAGA_MIGRATIONS, type Sagas } from '@cloudphone/saga/engine'
import { sql } from 'kysely'
import { type AuditLog, openAuditLog } from './audit-log.ts'
import { withProcessSpans, withPublishSpans } from './event-spans.ts'
import type { Binding } from './http-server.ts'
import { type Idempotency, openIdempotency, RUNTIME_MIGRATIONS } from './idempotency.ts'
import type { Platform } from './platform.ts'
import { platformBindings } from './platform-routes.ts'
import { bySystem } from './request-scope.ts'
import type { AnyService, BaseContext, ServiceContext, ServiceParts } from './service.ts'

/** The reliability kernel of one service instance. */
export interface Kernel {
  readonly context: Omit<ServiceContext<unknown, unknown>, keyof BaseContext<unknown>>
  readonly idempotency: Idempotency
  readonly audit: AuditLog
  /** Starts sagas, relay and consumers: called when the service's own parts stand. */
  begin(parts: ServiceParts<unknown>): Promise<void>
  /** Routes that every service has. */
  routes(parts: ServiceParts<unknown>): readonly Binding[]
  ready(): Promise<boolean>
  drain(): Promise<void>
}

const purgeEveryMs = 3_600_000

/** Brings the service's schema up to date and opens outbox, leases and sagas over it. */
export async function openKernel(
  service: AnyService,
  platform: Platform,
  base: BaseContext<unknown>,
): Promise<Kernel> {
  const { closing, log, metrics, tracer, clock, crash, name } = base
  const target = platform.databases[name]
  if (target === undefined) throw new Error(`the platform has no database for ${name}`)
  const directUrl = target.directUrl ?? target.url
  await migrate({ url: directUrl, schema: target.schema, directories: migrationsOf(service), log })
  const database: Database<unknown> = openDatabase({
    ...target,
    poolSize: platform.poolSize,
    applicationName: name,
    log,
  })
  closing.add('database', database)
  const session = { url: directUrl, log }
  const executor = closing.add('executor', holdExecutor({ ...session, applicationName: `${name} executor` }))
  const wakes = closing.add('notifier', notifier({ ...session, applicationName: `${name} notifier` }))
  const relay = openRelay({
    database,
    bus: withPublishSpans(platform.bus, tracer),
    executor,
    notifier: wakes,
    log,
    metrics,
    crash,
    clock,
  })
  const outbox = openOutbox({ source: `/cloudphone/${name}`, ids: base.ids, wake: () => relay.wake() })
  const leases = closing.add('leases', bySystemLoops(openLeases({ database, executor, log, metrics, clock })))
  closing.defer('relay', () => relay.stop())
  const idempotency = openIdempotency(database)
  const audit = openAuditLog({ database, ids: base.ids, log, name, keepDays: platform.auditKeepDays })
  let sagas: Sagas | undefined

  const purge = async (): Promise<void> => {
    await idempotency.purge()
    await audit.purge()
    await sagas?.purge()
  }
  const begin = async (parts: ServiceParts<unknown>): Promise<void> => {
    await executor.held()
    await relay.start()
    await sagas?.run()
    const handlers = withProcessSpans(bySystemHandlers(parts.handlers ?? []), tracer)
    const consumers = { bus: platform.bus, database, service: name, handlers, log, metrics, crash, clock }
    closing.add('consumers', await startConsumers(consumers))
    leases.loop({ name: 'runtime.purge', everyMs: purgeEveryMs, work: purge })
  }

  return {
    idempotency,
    audit,
    begin,
    context: {
      database,
      outbox,
      audit,
      leases,
      blobs: platform.blobs,
      openSagas: (definitions) => {
        if (sagas !== undefined) throw new Error(`${name}: the saga engine is open already`)
        const opened = openSagas({
          ...{ database, executor, definitions, outbox, log, metrics, tracer, crash, clock },
        })
        closing.defer('sagas', () => opened.stop())
        sagas = opened
        return opened
      },
    },
    routes: (parts) =>
      platformBindings({
        service: name,
        relay,
        database,
        bus: platform.bus,
        sagas,
        audit,
        invariants: parts.invariants,
      }),
    ready: async () => isReachable(database),
    drain: async () => {
      await sagas?.drain()
      await relay.drain()
    },
  }
}

/** Loops whose changes are on record as those of `system:<loop>`. */
function bySystemLoops(leases: Leases): Leases {
  const loop: Leases['loop'] = ({ work, ...options }) =>
    leases.loop({ ...options, work: (lease) => bySystem(options.name, () => work(lease)) })
  return {
    loop,
    tryAcquire: (name, options) => leases.tryAcquire(name, options),
    close: () => leases.close(),
  }
}

/** Handlers whose changes are on record as those of `system:<queue>`. */
function bySystemHandlers(handlers: readonly EventHandler<unknown>[]): readonly EventHandler<unknown>[] {
  return handlers.map((handler) => ({
    ...handler,
    handle: (tx, event) => bySystem(handler.queue ?? 'events', () => handler.handle(tx, event)),
  }))
}

function migrationsOf(service: AnyService): URL[] {
  const kernel = [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS, LEASE_MIGRATIONS, SAGA_MIGRATIONS]
  return [...kernel, RUNTIME_MIGRATIONS, ...(service.migrations === undefined ? [] : [service.migrations])]
}

async function isReachable(database: Database<unknown>): Promise<boolean> {
  try {
    await sql`select 1`.execute(database.kysely)
    return true
  } catch {
    // Whatever keeps it away: the answer to the question is no.
    return false
  }
}
