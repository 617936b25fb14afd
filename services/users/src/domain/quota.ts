/* Terminology:
 * - quota: how many phones, CPU cores, MB of memory, MB of storage and sessions a user, or all users of a tenant together,
 *   may hold at a time
 * - session, of quota: one pooled phone in use
 * - book: the limits of a user or a tenant, and what is used of them
 * - portion: what one phone or one session takes
 * - reservation: a portion that is held: reserved for a time, committed while the phone lives, then released for ever
 * - tombstone: a released reservation; it refuses a late reserve or commit under the same id
 */
import type { QuotaLimits, QuotaUse } from '@cloudphone/contracts/api/quota-api'
import type { TenantId, UserId } from '@cloudphone/contracts/id'

export type { QuotaLimits, QuotaUse }

/** What one phone or one session takes. */
export type Portion = QuotaUse
export type Resource = keyof QuotaUse

/** The limit of each resource, in the order in which they are looked at. */
export const limitNames = {
  devices: 'maxDevices',
  cpu: 'maxCpu',
  memory: 'maxMemory',
  storage: 'maxStorage',
  sessions: 'maxSessions',
} as const satisfies Record<Resource, keyof QuotaLimits>

export const resources = Object.keys(limitNames) as readonly Resource[]

/** Limits as somebody set them; null is the default's. */
export type OwnLimits = { readonly [Name in keyof QuotaLimits]: number | null }

/** Limits and use of somebody. */
export interface Book {
  readonly limits: QuotaLimits
  readonly used: QuotaUse
}

/** A book whose row is locked. */
export interface LockedBook extends Book {
  /** Resources whose refusal was told since something was last given back. */
  readonly told: readonly string[]
}

export interface LockedUserBook extends LockedBook {
  readonly tenantId: TenantId
  readonly status: string
}

export interface UserQuota extends Book {
  readonly userId: UserId
}

export interface TenantQuota extends Book {
  readonly tenantId: TenantId
}

/** What limits are that nobody set. */
export interface QuotaDefaults {
  readonly user: QuotaLimits
  readonly tenant: QuotaLimits
}

export type LiveState = 'reserved' | 'committed'

export interface Reservation {
  readonly reservationId: string
  readonly userId: UserId
  readonly state: LiveState
}

/** A limit that a portion does not fit under, with the figures. */
export interface Excess {
  readonly resource: Resource
  readonly limit: number
  readonly used: number
  readonly asked: number
}

/** The first resource of which a portion takes more than is left; undefined when it fits. */
export function excessOf({ limits, used }: Book, portion: Portion): Excess | undefined {
  for (const resource of resources) {
    const [asked, limit] = [portion[resource], limits[limitNames[resource]]]
    if (asked > 0 && used[resource] + asked > limit) return { resource, limit, used: used[resource], asked }
  }
  return undefined
}

/** Both together. */
export function plus(used: QuotaUse, portion: Portion): QuotaUse {
  return {
    devices: used.devices + portion.devices,
    cpu: used.cpu + portion.cpu,
    memory: used.memory + portion.memory,
    storage: used.storage + portion.storage,
    sessions: used.sessions + portion.sessions,
  }
}

export function isSame(one: Portion, other: Portion): boolean {
  return resources.every((resource) => one[resource] === other[resource])
}
