import { type Caller, may } from '@cloudphone/contracts/access'
import {
  TenantQuotaUpdated,
  UserQuotaExceeded,
  UserQuotaUpdated,
} from '@cloudphone/contracts/events/user-events'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import { groupCommit } from '@cloudphone/db/group-commit'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { common } from '@cloudphone/runtime/problem'
import { findAccount } from '../db/account-repo.ts'
import {
  ensureTenantBook,
  findTenantQuota,
  findUserQuota,
  lockBooks,
  lockLimits,
  lockTenantLimits,
  nextUserVersion,
  noteTold,
  updateLimits,
  updateTenantLimits,
} from '../db/quota-repo.ts'
import {
  commitReservations,
  endReservations,
  findReservations,
  insertTombstones,
  listDue,
  listLiveReservations,
  purgeTombstones,
  takePortions,
} from '../db/reservation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { assertMaySee } from './account.ts'
import {
  admit,
  type Books,
  type KnownReservation,
  type Verdict,
  type WantedReservation,
} from './admission.ts'
import type { OwnLimits, QuotaDefaults, Reservation, TenantQuota, UserQuota } from './quota.ts'

type Excess = Omit<Extract<Verdict, { kind: 'exceeded' }>, 'kind'>

interface Refusal {
  readonly userId: UserId
  readonly excess: Excess
}

/** Thrown inside a transaction to take it back: what it was decided on has changed meanwhile. */
class Overtaken extends Error {
  override readonly name = 'Overtaken'
}

/** Somebody else can use the same new id between a look and a write, but only once: it is known afterwards. */
const MAX_LOOKS = 5
/** Expired ones handled in one turn of the loop. */
const EXPIRY_BATCH = 500
/** As long as finished sagas are kept (decision 10): nobody asks for an older reservation. */
const TOMBSTONE_DAYS = 30

/**
 * Quota: limits, and what phones and sessions hold of them. Never exceeded, by a user or by a tenant, whoever reserves at
 * the same time. What is asked at the same time shares a transaction, so that one busy tenant is not bound by the time
 * that one commit takes.
 */
export class QuotaService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #outbox: Outbox
  readonly #defaults: QuotaDefaults
  readonly #telemetry: UsersTelemetry
  readonly #reserve = groupCommit((wanted: readonly WantedReservation[]) => this.#reserveAll(wanted))
  readonly #commit = groupCommit((ids: readonly string[]) => this.#commitAll(ids))
  readonly #release = groupCommit((ids: readonly string[]) => this.#releaseAll(ids))

  constructor(deps: {
    database: Database<UsersSchema>
    outbox: Outbox
    audit: Audit
    defaults: QuotaDefaults
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#outbox = deps.outbox
    this.#audit = deps.audit
    this.#defaults = deps.defaults
    this.#telemetry = deps.telemetry
  }

  /** @throws ProblemError `user_not_found`, `forbidden`; see `assertMaySee`. */
  async get(caller: Caller, userId: UserId): Promise<UserQuota> {
    assertMaySee(caller, await findAccount(this.#database.kysely, userId), userId)
    return this.#ofUser(userId)
  }

  /** What a cache keeps of a user. @throws ProblemError `user_not_found`. */
  async read(userId: UserId): Promise<{ user: UserQuota; tenant: TenantQuota }> {
    const user = await this.#ofUser(userId)
    return { user, tenant: await this.#ofTenant(user.tenantId) }
  }

  /** Sets the limits of an account of the caller's tenant. @throws ProblemError `user_not_found`, `forbidden`. */
  async setLimits(caller: Caller, userId: UserId, limits: OwnLimits): Promise<UserQuota> {
    assertMaySee(caller, await findAccount(this.#database.kysely, userId), userId)
    if (!may(caller, 'users:manage')) throw common.forbidden({ permission: 'users:manage' })
    return await this.#database.transaction(async (tx) => {
      const before = await lockLimits(tx, userId)
      await updateLimits(tx, userId, limits)
      const quota = await findUserQuota(tx, userId, this.#defaults)
      if (quota === undefined) throw problems.user_not_found({ userId })
      await this.#outbox.add(tx, UserQuotaUpdated, {
        aggregateId: userId,
        aggregateVersion: await nextUserVersion(tx, userId),
        payload: { userId, tenantId: quota.tenantId, ...quota.limits },
      })
      const { tenantId } = quota
      await this.#audit.add(tx, { verb: 'quota.set', target: userId, tenantId, before, after: limits })
      afterCommit(tx, () => this.#telemetry.quotaLimitsSet({ whose: 'user', id: userId, by: caller.userId }))
      return quota
    })
  }

  /** One's own tenant, or any for who manages tenants. @throws ProblemError `tenant_not_found`. */
  async getTenant(caller: Caller, tenantId: TenantId): Promise<TenantQuota> {
    // Another tenant's existence is nobody's business.
    const isHidden = caller.tenantId !== tenantId && !may(caller, 'tenants:manage')
    if (isHidden) throw problems.tenant_not_found({ tenantId })
    return this.#ofTenant(tenantId)
  }

  /** Sets the limits of any tenant. @throws ProblemError `forbidden`, `tenant_not_found`. */
  async setTenantLimits(caller: Caller, tenantId: TenantId, limits: OwnLimits): Promise<TenantQuota> {
    if (!may(caller, 'tenants:manage')) throw common.forbidden({ permission: 'tenants:manage' })
    await this.#ofTenant(tenantId)
    return await this.#database.transaction(async (tx) => {
      await ensureTenantBook(tx, tenantId)
      const before = await lockTenantLimits(tx, tenantId)
      const version = await updateTenantLimits(tx, tenantId, limits)
      const quota = await findTenantQuota(tx, tenantId, this.#defaults)
      if (quota === undefined) throw problems.tenant_not_found({ tenantId })
      await this.#outbox.add(tx, TenantQuotaUpdated, {
        aggregateId: tenantId,
        aggregateVersion: version,
        payload: { tenantId, ...quota.limits },
      })
      const verb = 'tenant_quota.set'
      await this.#audit.add(tx, { verb, target: tenantId, tenantId, before, after: limits })
      const set = { whose: 'tenant', id: tenantId, by: caller.userId }
      afterCommit(tx, () => this.#telemetry.quotaLimitsSet(set))
      return quota
    })
  }

  /**
   * Takes quota for a phone or a session; the same again under the same id answers what is held.
   * @throws ProblemError `quota_exceeded` with whose limit of what it is, the limit, the use and what was asked for;
   * `user_not_found`, `user_suspended`, `reservation_released`; `reservation_conflict` when the id was reserved with other
   * figures.
   */
  async reserve(wanted: WantedReservation): Promise<Reservation> {
    const { reservationId, userId } = wanted
    const verdict = await this.#reserve(wanted)
    switch (verdict?.kind) {
      case 'taken':
        this.#telemetry.quotaReserved({ userId, reservationId })
        return { reservationId, userId, state: 'reserved' }
      case 'known':
        return { reservationId, userId, state: verdict.state }
      case 'released':
        throw problems.reservation_released({ reservationId })
      case 'conflict':
        throw problems.reservation_conflict({ reservationId })
      case 'suspended':
        throw problems.user_suspended({ userId })
      case 'exceeded': {
        const { kind: _kind, tenantId, ...excess } = verdict
        this.#telemetry.quotaRefused({ userId, whose: excess.whose, resource: excess.resource })
        const id = excess.whose === 'user' ? userId : tenantId
        throw problems.quota_exceeded({ userId, tenantId, id, ...excess })
      }
      default:
        throw problems.user_not_found({ userId })
    }
  }

  /** Keeps a reservation. @throws ProblemError `reservation_released`, `reservation_not_found`. */
  async commit(reservationId: string): Promise<void> {
    if (await this.#commit(reservationId)) return
    const known = await findReservations(this.#database.kysely, [reservationId])
    if (known.has(reservationId)) throw problems.reservation_released({ reservationId })
    throw problems.reservation_not_found({ reservationId })
  }

  /** Gives quota back for ever; of an unknown id a tombstone stays, which refuses a late reserve. */
  async release(reservationId: string): Promise<void> {
    if (await this.#release(reservationId)) this.#telemetry.quotaReleased({ reservationId })
  }

  /** Live reservations, for the doctor; one more than `limit` when there are more. */
  listLive(page: { beforeId: string | undefined; limit: number }): Promise<Reservation[]> {
    return listLiveReservations(this.#database.kysely, page)
  }

  /** Gives back what was reserved and never committed, and forgets old tombstones. */
  async expire(): Promise<void> {
    const due = await listDue(this.#database.kysely, EXPIRY_BATCH)
    if (due.length > 0) {
      const reservationIds = await this.#database.transaction(async (tx) => {
        await lockBooks(tx, [...new Set(due.map(({ userId }) => userId))], this.#defaults)
        const ids = due.map(({ reservationId }) => reservationId)
        return await endReservations(tx, ids, 'expired')
      })
      if (reservationIds.length > 0) this.#telemetry.quotaExpired({ reservationIds })
    }
    await purgeTombstones(this.#database.kysely, TOMBSTONE_DAYS)
  }

  /** One transaction for all: rows of reservations, books and events. */
  #reserveAll(wanted: readonly WantedReservation[]): Promise<Verdict[]> {
    return this.#untilSettled(async (tx) => {
      const userIds = [...new Set(wanted.map(({ userId }) => userId))]
      const locked = await lockBooks(tx, userIds, this.#defaults)
      const ids = wanted.map(({ reservationId }) => reservationId)
      const books = { ...locked, known: await findReservations(tx, ids) }
      const verdicts = admit(wanted, books)
      const taken = wanted.filter((_one, at) => verdicts[at]?.kind === 'taken')
      if (taken.length > 0 && !(await takePortions(tx, taken, this.#defaults))) throw new Overtaken()
      await this.#tellExceeded(tx, refusalsOf(wanted, verdicts), books)
      return verdicts
    })
  }

  async #commitAll(ids: readonly string[]): Promise<boolean[]> {
    const live = await commitReservations(this.#database.prepared, ids)
    return ids.map((id) => live.has(id))
  }

  /** True for each id whose portion is free by this. */
  #releaseAll(ids: readonly string[]): Promise<boolean[]> {
    return this.#untilSettled(async (tx) => {
      const known = await findReservations(tx, ids)
      await lockBooks(tx, [...new Set([...known.values()].flatMap(liveOwner))], this.#defaults)
      const ended = new Set(await endReservations(tx, [...known.keys()], 'released'))
      const unknown = [...new Set(ids.filter((id) => !known.has(id)))]
      if (unknown.length > 0 && (await insertTombstones(tx, unknown)) < unknown.length) throw new Overtaken()
      return ids.map((id) => ended.has(id))
    })
  }

  /** One event for each limit that refuses, until something is given back: in the order of user ids, as locks are taken. */
  async #tellExceeded(tx: Tx<UsersSchema>, refusals: readonly Refusal[], books: Books): Promise<void> {
    const told = new Set<string>()
    for (const { userId, excess } of refusals.toSorted(byUser)) {
      const { whose, tenantId, resource } = excess
      const of = whose === 'user' ? { whose, id: userId } : { whose, id: tenantId }
      const book = whose === 'user' ? books.users.get(userId) : books.tenants.get(tenantId)
      const name = `${of.id} ${resource}`
      if (told.has(name) || book?.told.includes(resource)) continue
      told.add(name)
      await noteTold(tx, of, resource)
      await this.#outbox.add(tx, UserQuotaExceeded, {
        aggregateId: userId,
        aggregateVersion: await nextUserVersion(tx, userId),
        payload: { userId, ...excess },
      })
    }
  }

  async #untilSettled<Result>(work: (tx: Tx<UsersSchema>) => Promise<Result>): Promise<Result> {
    for (let look = 1; ; look += 1) {
      try {
        return await this.#database.transaction(work, { statements: 'prepared' })
      } catch (error) {
        if (!(error instanceof Overtaken) || look >= MAX_LOOKS) throw error
      }
    }
  }

  async #ofUser(userId: UserId): Promise<UserQuota & { tenantId: TenantId }> {
    const quota = await findUserQuota(this.#database.kysely, userId, this.#defaults)
    if (quota === undefined) throw problems.user_not_found({ userId })
    return quota
  }

  async #ofTenant(tenantId: TenantId): Promise<TenantQuota> {
    const quota = await findTenantQuota(this.#database.kysely, tenantId, this.#defaults)
    if (quota === undefined) throw problems.tenant_not_found({ tenantId })
    return quota
  }
}

function refusalsOf(wanted: readonly WantedReservation[], verdicts: readonly Verdict[]): Refusal[] {
  return wanted.flatMap(({ userId }, at) => {
    const verdict = verdicts[at]
    if (verdict?.kind !== 'exceeded') return []
    const { kind: _kind, ...excess } = verdict
    return [{ userId, excess }]
  })
}

const byUser = (one: Refusal, other: Refusal) => (one.userId < other.userId ? -1 : 1)

function liveOwner({ userId, state }: KnownReservation): UserId[] {
  return userId === null || state === 'released' ? [] : [userId]
}
