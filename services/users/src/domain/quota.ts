/* Terminology:
 * - quota: how many phones, CPU cores, MB of memory and MB of storage a user may hold at a time
 * - reservation: what one phone takes of it: reserved for a time, committed while the phone lives, then released for ever
 * - tombstone: a released reservation; it refuses a late reserve or commit under the same id
 */
import type { UserId } from '@cloudphone/contracts/id'

/** What a user may hold, in phones, cores, MB and MB. */
export interface QuotaLimits {
  readonly maxDevices: number
  readonly maxCpu: number
  readonly maxMemory: number
  readonly maxStorage: number
}

/** What a user holds. */
export interface QuotaUse {
  readonly devices: number
  readonly cpu: number
  readonly memory: number
  readonly storage: number
}

export interface Quota {
  readonly userId: UserId
  readonly limits: QuotaLimits
  readonly used: QuotaUse
}

/** What one phone takes. */
export type Portion = Omit<QuotaUse, 'devices'>

export interface Reservation {
  readonly reservationId: string
  readonly userId: UserId
  readonly state: 'reserved' | 'committed'
}

/** The first resource of which a phone would take more than is left, with the figures; undefined when it fits. */
export function exceededBy(
  quota: Quota,
  portion: Portion,
): { resource: keyof QuotaUse; wanted: number; limit: number } | undefined {
  const rows = [
    ['devices', 1, quota.limits.maxDevices],
    ['cpu', portion.cpu, quota.limits.maxCpu],
    ['memory', portion.memory, quota.limits.maxMemory],
    ['storage', portion.storage, quota.limits.maxStorage],
  ] as const
  for (const [resource, more, limit] of rows) {
    const wanted = quota.used[resource] + more
    if (more > 0 && wanted > limit) return { resource, wanted, limit }
  }
  return undefined
}
