import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { QuotaService } from '../domain/quota-service.ts'
import type { SessionService } from '../domain/session-service.ts'

/** Expires reservations and purges ended sessions, in one instance at a time. Two at once would do no harm. */
export function startHousekeeping(
  leases: Leases,
  { quotas, sessions, everyMs }: { quotas: QuotaService; sessions: SessionService; everyMs: number },
): LeasedLoop {
  return leases.loop({
    name: 'users.housekeeping',
    everyMs,
    work: async () => {
      await quotas.expire()
      await sessions.purge()
    },
  })
}
