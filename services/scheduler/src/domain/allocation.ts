/* Terminology:
 * - pooled phone: a device without an owner; usable only under an ACTIVE allocation
 * - allocation: the right of one user to one pooled phone for a time
 * - holder: the user of the allocation
 * - fence: a number that rises with each change of holder; what carries a lower one is refused by the devices service
 * - grant, release: the sagas by which a phone comes to its holder and leaves him
 */
import type { AllocationStatus } from '@cloudphone/contracts/api/scheduler-api'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'

/** How a pooled phone stands from the scheduler's side (decision 7). */
export type Availability = 'available' | 'leased' | 'cleaning' | 'quarantined' | 'unavailable'

/** Every legal move of an allocation: from which statuses to which. There is no other. */
export const moves = {
  activate: { from: ['PENDING'], to: 'ACTIVE' },
  fail: { from: ['PENDING'], to: 'FAILED' },
  release: { from: ['ACTIVE'], to: 'RELEASING' },
  finish: { from: ['RELEASING'], to: 'RELEASED' },
  expire: { from: ['RELEASING'], to: 'EXPIRED' },
} as const satisfies Record<string, { from: readonly AllocationStatus[]; to: AllocationStatus }>

/** Statuses in which a phone is taken: the partial unique index `allocations_live_device` has the same list. */
export const liveStatuses = ['PENDING', 'ACTIVE', 'RELEASING'] as const satisfies readonly AllocationStatus[]

/** Statuses that an allocation may show to somebody who releases it again. */
export const releasedStatuses: readonly AllocationStatus[] = ['RELEASING', 'RELEASED', 'EXPIRED']

/** The move by which a release ends: only what ran out of time is EXPIRED. */
export function endOf(reason: ReleaseReason | null): 'finish' | 'expire' {
  return reason === 'expired' ? 'expire' : 'finish'
}

/** True for reasons that no person gave. */
export function isAutomatic(reason: ReleaseReason): boolean {
  return reason !== 'user' && reason !== 'operator' && reason !== 'grant_failed'
}

/** What a phone that nobody holds is. */
export function freeAvailability(status: DeviceStatus, deleted: boolean): 'available' | 'unavailable' {
  return status === 'RUNNING' && !deleted ? 'available' : 'unavailable'
}

/** Whole seconds between two instants, never below 0. */
export function wholeSeconds(from: Date | null, to: Date): number {
  return from === null ? 0 : Math.max(0, Math.floor((to.getTime() - from.getTime()) / 1000))
}
