import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { Sessions } from '../domain/sessions.ts'

const EVERY_MS = 5_000

/** Gives owed sessions back, in one instance at a time; a commit that owes one nudges it. */
export function startQuotaReleases(leases: Leases, sessions: Sessions): LeasedLoop {
  return leases.loop({
    name: 'scheduler.quota-releases',
    everyMs: EVERY_MS,
    work: async () => await sessions.releaseOwed(),
  })
}
