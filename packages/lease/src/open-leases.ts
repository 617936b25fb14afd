import type { Executor } from '@cloudphone/db/executor'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { QueryExecutorProvider } from 'kysely'
import { openHoldings } from './holdings.ts'
import type { Leases } from './lease.ts'
import { startLoop } from './leased-loop.ts'

/** The folder with the table of leases, for `migrate`. Needs `app_now()`. */
export const LEASE_MIGRATIONS = new URL('../migrations/', import.meta.url)

export interface LeasesOptions {
  /** Where the table `lease` lies: the service's own database. */
  readonly database: { readonly kysely: QueryExecutorProvider }
  /** Of the same database: a lease whose executor is gone is free at once. */
  readonly executor: Executor
  readonly log: Logger
  readonly metrics: Metrics
  /** Times the turns of loops. Leases themselves always run on real time, as the server does. */
  readonly clock?: Clock
  /** How long a frozen or partitioned holder keeps a lease. Default 1,500 ms; renewed at a third. */
  readonly ttlMs?: number
}

const DEFAULT_TTL_MS = 1_500

/** Opens the leases of one process; nothing is taken until asked for. */
export function openLeases(options: LeasesOptions): Leases {
  const { executor, log, metrics, clock = systemClock, ttlMs = DEFAULT_TTL_MS } = options
  const holdings = openHoldings({ db: options.database.kysely, executor, log, ttlMs })
  const loops = new Set<{ stop(): Promise<void> }>()
  let closing: Promise<void> | undefined

  const close = async (): Promise<void> => {
    await Promise.all([...loops].map((loop) => loop.stop()))
    await holdings.close()
  }
  return {
    loop({ name, everyMs, work }) {
      if (closing !== undefined) throw new Error(`Lease ${name}: leases are closed`)
      const loop = startLoop({ name, everyMs, work, holdings, clock, log, metrics, ttlMs })
      loops.add(loop)
      return {
        nudge: () => loop.nudge(),
        async stop() {
          loops.delete(loop)
          await loop.stop()
        },
      }
    },
    async tryAcquire(name, { ttlMs: ownTtlMs = ttlMs } = {}) {
      const held = await holdings.tryTake({ name, ttlMs: ownTtlMs })
      if (held === undefined) return undefined
      const { epoch, signal } = held
      return { name, epoch, signal, [Symbol.asyncDispose]: () => holdings.giveBack(held) }
    },
    close() {
      closing ??= close()
      return closing
    },
  }
}
