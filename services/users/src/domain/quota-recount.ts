import type { Database } from '@cloudphone/db/database'
import { lockBooks, lockTenants } from '../db/quota-repo.ts'
import { compareCounters, recountBook } from '../db/reservation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { QuotaDefaults } from './quota.ts'

/**
 * Compares the counters of all books with the reservations they count and sets those right that differ; answers how many.
 * Counters change together with reservations, so a difference means that somebody changed rows by hand, or a defect: each
 * is an error in the log.
 */
export async function recountQuota(deps: {
  database: Database<UsersSchema>
  defaults: QuotaDefaults
  telemetry: UsersTelemetry
}): Promise<number> {
  const { database, defaults, telemetry } = deps
  const { wrong } = await compareCounters(database.kysely)
  let repaired = 0
  for (const drift of wrong) {
    const done = await database.transaction(async (tx) => {
      await (drift.whose === 'user'
        ? lockBooks(tx, [drift.id], defaults)
        : lockTenants(tx, [drift.id], defaults))
      return await recountBook(tx, drift)
    })
    if (!done) continue
    repaired += 1
    telemetry.quotaRecounted(drift)
  }
  return repaired
}
