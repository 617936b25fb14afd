import type { TenantId, UserId } from '@cloudphone/contracts/id'
import {
  type Excess,
  excessOf,
  isSame,
  type LiveState,
  type LockedBook,
  type LockedUserBook,
  type Portion,
  plus,
  type QuotaUse,
} from './quota.ts'

/** What is asked for. */
export interface WantedReservation extends Portion {
  readonly reservationId: string
  readonly userId: UserId
  /** The tenant in whose name it is asked for; users of others do not exist there. */
  readonly tenantId?: TenantId | undefined
  readonly ttlSeconds: number
}

/** What became of an id before. */
export interface KnownReservation extends Portion {
  readonly userId: UserId | null
  readonly state: LiveState | 'released'
}

/** Whose limit it is. */
export type Whose = 'user' | 'tenant'

export type Verdict =
  | { readonly kind: 'taken' }
  | { readonly kind: 'known'; readonly state: LiveState }
  | { readonly kind: 'released' | 'conflict' | 'no_user' | 'suspended' }
  | ({ readonly kind: 'exceeded'; readonly whose: Whose; readonly tenantId: TenantId } & Excess)

/** What the locked rows say. */
export interface Books {
  readonly users: ReadonlyMap<UserId, LockedUserBook>
  readonly tenants: ReadonlyMap<TenantId, LockedBook>
  readonly known: ReadonlyMap<string, KnownReservation>
}

/**
 * Decides one after the other, each by what those before it left: a portion is taken if all of it fits under the limits of
 * the user and of the tenant. One that does not fit leaves room to smaller ones behind it.
 */
export function admit(wanted: readonly WantedReservation[], books: Books): Verdict[] {
  const known = new Map(books.known)
  const used = new Map<string, QuotaUse>()
  return wanted.map((one) => {
    const before = known.get(one.reservationId)
    const user = books.users.get(one.userId)
    const tenant = user && books.tenants.get(user.tenantId)
    const isElsewhere = one.tenantId !== undefined && user?.tenantId !== one.tenantId
    if (user === undefined || tenant === undefined || isElsewhere) return { kind: 'no_user' }
    if (before !== undefined) return verdictOnKnown(before, one)
    if (user.status !== 'active') return { kind: 'suspended' }
    const { tenantId } = user
    const [mine, ours] = [used.get(one.userId) ?? user.used, used.get(tenantId) ?? tenant.used]
    const overMine = excessOf({ limits: user.limits, used: mine }, one)
    if (overMine !== undefined) return { kind: 'exceeded', whose: 'user', tenantId, ...overMine }
    const overOurs = excessOf({ limits: tenant.limits, used: ours }, one)
    if (overOurs !== undefined) return { kind: 'exceeded', whose: 'tenant', tenantId, ...overOurs }
    used.set(one.userId, plus(mine, one))
    used.set(tenantId, plus(ours, one))
    known.set(one.reservationId, { ...one, state: 'reserved' })
    return { kind: 'taken' }
  })
}

function verdictOnKnown(known: KnownReservation, wanted: WantedReservation): Verdict {
  if (known.state === 'released') return { kind: 'released' }
  const isTheSame = known.userId === wanted.userId && isSame(known, wanted)
  return isTheSame ? { kind: 'known', state: known.state } : { kind: 'conflict' }
}
