import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import { recountQuota } from '../domain/quota-recount.ts'

/** Recounts quota, in one instance at a time. Two at once would do no harm. */
export function startQuotaRecount(
  leases: Leases,
  { everyMs, ...deps }: { everyMs: number } & Parameters<typeof recountQuota>[0],
): LeasedLoop {
  return leases.loop({
    name: 'users.quota-recount',
    everyMs,
    work: async () => {
      await recountQuota(deps)
    },
  })
}
