import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { AllocationService } from '../domain/allocation-service.ts'

/** Ends what ran out of time, in one instance at a time. Two at once do no harm: each end is a guarded update. */
export function startExpiry(
  leases: Leases,
  options: { allocations: AllocationService; everyMs: number; graceMs: number },
): LeasedLoop {
  return leases.loop({
    name: 'scheduler.expiry',
    everyMs: options.everyMs,
    work: async ({ signal }) => {
      await options.allocations.releaseDue({ graceMs: options.graceMs, signal })
    },
  })
}
