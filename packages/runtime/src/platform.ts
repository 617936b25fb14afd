import type { BlobStore } from '@cloudphone/blobs/blob-store'
import type { Bus } from '@cloudphone/bus/bus'
import type { Cache } from '@cloudphone/cache/cache'
import type { Ids } from '@cloudphone/contracts/id'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Tracing } from '@cloudphone/observe/tracing'
import type { Registry } from '@cloudphone/registry/registry'
import type { Env } from './config.ts'

/** What stands behind the ports; made by the server or by a test. */
export interface Platform {
  readonly env: Env
  readonly log: Logger
  readonly registry: Registry
  readonly bus: Bus
  readonly blobs: BlobStore
  readonly cache: Cache
  readonly crash: CrashPoints
  /** Of what the services of this process share, such as the bus; shown by the instance that `showsPlatform`. */
  readonly metrics: Metrics
  readonly serviceSecret: string
  /** Where each service's schema lies. */
  readonly databases: Readonly<Record<string, { url: string; directUrl?: string; schema: string }>>
  readonly poolSize: number
  readonly host: string
  readonly portBase: number
  /** Undefined: spans are not made, and traces only carried on. */
  readonly tracing?: Tracing | undefined
  /** How long the audit log is kept; default a year. */
  readonly auditKeepDays?: number
  /** For tests: a change by request that leaves no record is an error. */
  readonly strictAudit?: boolean
  readonly clock?: Clock
  readonly ids?: Ids
}

/** As much of it as a service needs that keeps nothing. */
export type Ground = Omit<Platform, 'bus' | 'blobs' | 'databases' | 'poolSize'>
