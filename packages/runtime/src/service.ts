/* Terminology:
 * - service: a room of the house: routes, consumers, sagas and loops over a schema of its own
 * - instance: one running copy of a service; two of each can live in one process
 * - platform: what stands behind the ports (database, bus, blobs, registry); chosen by the server, never by a service
 * - parts: what a service hands back from its start for the runtime to run
 */

import type { BlobStore } from '@cloudphone/blobs/blob-store'
import type { EventHandler } from '@cloudphone/bus/consumer'
import type { Cache } from '@cloudphone/cache/cache'
import type { Claim, InvariantReport } from '@cloudphone/contracts/api/platform-api'
import type { Ids } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { Database, Tx } from '@cloudphone/db/database'
import type { Leases } from '@cloudphone/lease/lease'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Tracer } from '@cloudphone/observe/trace'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Registry } from '@cloudphone/registry/registry'
import type { SagaDefinition } from '@cloudphone/saga/definition'
import type { Sagas } from '@cloudphone/saga/engine'
import type { FastifyInstance } from 'fastify'
import type { z } from 'zod'
import type { Audit } from './audit-log.ts'
import type { ClosingStack } from './closing.ts'
import type { Binding, HttpLimits } from './http-server.ts'
import type { RevocationWatch } from './revocations.ts'
import type { ServiceClient } from './service-client.ts'
import type { ServiceTokens, TokenVerifier } from './tokens.ts'

/** What every service gets. */
export interface BaseContext<Settings> {
  readonly name: ServiceName
  /** 0 for the first instance on a machine. */
  readonly instance: number
  readonly settings: Settings
  readonly registry: Registry
  /** What may be forgotten at any moment, shared by all instances where a server for it is set. */
  readonly cache: Cache
  readonly client: ServiceClient
  readonly tokens: TokenVerifier
  /** What was revoked; for what outlives the request that was let in, such as a socket. */
  readonly revocations: RevocationWatch
  readonly serviceTokens: ServiceTokens
  /** A key for one purpose of this service, from the platform's secret: the same in all its instances, for ever. */
  deriveKey(purpose: string): Buffer
  readonly clock: Clock
  readonly ids: Ids
  readonly log: Logger
  readonly metrics: Metrics
  /** Undefined: no spans are to be made. */
  readonly tracer: Tracer | undefined
  readonly crash: CrashPoints
  /** What the service opened itself; closed after its HTTP server, consumers and sagas have drained. */
  readonly closing: ClosingStack
}

/** What a service with a schema of its own gets besides. */
export interface ServiceContext<Settings, Schema> extends BaseContext<Settings> {
  readonly database: Database<Schema>
  readonly outbox: Outbox
  /** Where every change by a user is put on record. */
  readonly audit: Audit
  readonly leases: Leases
  readonly blobs: BlobStore
  /** Opens the saga engine with this service's definitions; the runtime starts and stops it. Called at most once. */
  openSagas(definitions: readonly SagaDefinition<never, Tx<Schema>>[]): Sagas
}

/** What the runtime runs for a service. */
export interface ServiceParts<Schema = never> {
  readonly routes: readonly Binding[]
  /** One for each event of each of the service's queues. */
  readonly handlers?: readonly EventHandler<Schema>[]
  /** What this service can say about the platform's invariants; asked by the doctor. */
  readonly invariants?: () => Promise<{ reports: readonly InvariantReport[]; claims: readonly Claim[] }>
  /** Bounds of the HTTP server, where callers are anybody. */
  readonly http?: HttpLimits
  /** Adds what is not a contract's route to the HTTP server: a proxy, a socket. Runs before it listens. */
  readonly extend?: (app: FastifyInstance) => Promise<void>
  /** Runs when everything else is up: loops begin here. */
  readonly onReady?: () => Promise<void>
}

export interface StatelessService<Settings extends z.ZodObject> {
  readonly name: ServiceName
  readonly settings: Settings
  readonly start: (context: BaseContext<z.output<Settings>>) => Promise<ServiceParts>
}

export interface StatefulService<Settings extends z.ZodObject, Schema> {
  readonly name: ServiceName
  readonly settings: Settings
  /** The folder of the service's own migrations; the kernel's run before them. */
  readonly migrations: URL
  readonly start: (context: ServiceContext<z.output<Settings>, Schema>) => Promise<ServiceParts<Schema>>
}

/** A service whatever its settings and schema: what the server's roster holds. Only `startService` starts it. */
export interface AnyService {
  readonly name: ServiceName
  readonly settings: z.ZodObject
  readonly migrations: URL | undefined
  /** Takes its context and gives its parts; their types are between `defineService` and `startService`. */
  readonly start: (context: never) => Promise<unknown>
}

/** Declares a service that keeps a schema. The whole wiring of a service stands in its `start`, on one screen. */
export function defineService<Settings extends z.ZodObject, Schema>(
  service: StatefulService<Settings, Schema>,
): AnyService {
  return service
}

/** Declares a service that keeps nothing, such as the gateway. */
export function defineStatelessService<Settings extends z.ZodObject>(
  service: StatelessService<Settings>,
): AnyService {
  return { ...service, migrations: undefined }
}
