import type { Caller } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { findAccount } from '../db/account-repo.ts'
import {
  commitReservation,
  expireReservations,
  findQuota,
  findReservation,
  givePortion,
  insertReservation,
  listLiveReservations,
  purgeTombstones,
  releaseReservation,
  takePortion,
  updateLimits,
} from '../db/quota-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { assertMaySee } from './account.ts'
import { exceededBy, type Portion, type Quota, type QuotaLimits, type Reservation } from './quota.ts'

interface WantedReservation extends Portion {
  readonly reservationId: string
  readonly userId: UserId
  /** The tenant in whose name it is asked for; users of others do not exist there. */
  readonly tenantId?: TenantId | undefined
  readonly ttlSeconds: number
}

type Reserved =
  | { readonly kind: 'taken' }
  | { readonly kind: 'known'; readonly state: 'reserved' | 'committed' }

/** Thrown inside a transaction to take the inserted reservation back with it. */
class NotTaken extends Error {}

/** Expired ones handled in one turn of the loop. */
const expiryBatch = 500
/** As long as finished sagas are kept (decision 10): nobody asks for an older reservation. */
const tombstoneDays = 30

/** Quota: limits, and what phones hold of them. Never exceeded, whoever reserves at the same time. */
export class QuotaService {
  readonly #database: Database<UsersSchema>
  readonly #defaults: QuotaLimits
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    defaults: QuotaLimits
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#defaults = deps.defaults
    this.#telemetry = deps.telemetry
  }

  /** @throws ProblemError `user_not_found`, `forbidden`; see `assertMaySee`. */
  async get(caller: Caller, userId: UserId): Promise<Quota> {
    assertMaySee(caller, await findAccount(this.#database.kysely, userId), userId)
    return this.#quotaOf(userId)
  }

  /** Sets the limits of an account of the caller's tenant. @throws ProblemError `user_not_found`, `forbidden`. */
  async setLimits(caller: Caller, userId: UserId, limits: QuotaLimits): Promise<Quota> {
    assertMaySee(caller, await findAccount(this.#database.kysely, userId), userId)
    await updateLimits(this.#database.kysely, userId, limits)
    return this.#quotaOf(userId)
  }

  /**
   * Takes quota for a phone; the same again under the same id answers what is held.
   * @throws ProblemError `quota_exceeded`, `user_not_found`, `user_suspended`, `reservation_released`,
   * `reservation_conflict` when the id was reserved with other figures.
   */
  async reserve(wanted: WantedReservation): Promise<Reservation> {
    const { reservationId, userId, tenantId } = wanted
    // Accounts are never deleted and never change their tenant, so this stays true, and the reservation's foreign key holds.
    const account = await findAccount(this.#database.kysely, userId)
    if (account === undefined || (tenantId !== undefined && account.tenantId !== tenantId)) {
      throw problems.user_not_found({ userId })
    }
    const outcome = await this.#take(wanted).catch((error: unknown) => {
      if (error instanceof NotTaken) return undefined
      throw error
    })
    if (outcome === undefined) throw await this.#refusalOf(wanted)
    if (outcome.kind === 'known') return { reservationId, userId, state: outcome.state }
    this.#telemetry.quotaReserved({ userId, reservationId })
    return { reservationId, userId, state: 'reserved' }
  }

  /** Keeps a reservation. @throws ProblemError `reservation_released`, `reservation_not_found`. */
  async commit(reservationId: string): Promise<void> {
    if (await commitReservation(this.#database.kysely, reservationId)) return
    const known = await findReservation(this.#database.kysely, reservationId)
    throw known === undefined
      ? problems.reservation_not_found({ reservationId })
      : problems.reservation_released({ reservationId })
  }

  /** Gives quota back for ever; an unknown id is refused from now on. */
  async release(reservationId: string): Promise<void> {
    const freed = await this.#database.transaction(async (tx) => {
      const held = await releaseReservation(tx, reservationId)
      if (held !== undefined) await givePortion(tx, held.userId, held)
      return held
    })
    if (freed !== undefined) this.#telemetry.quotaReleased({ reservationId })
  }

  /** Live reservations, for the doctor; one more than `limit` when there are more. */
  listLive(page: { beforeId: string | undefined; limit: number }): Promise<Reservation[]> {
    return listLiveReservations(this.#database.kysely, page)
  }

  /** Gives back what was reserved and never committed, and forgets old tombstones. */
  async expire(): Promise<void> {
    const reservationIds = await this.#database.transaction((tx) => expireReservations(tx, expiryBatch))
    if (reservationIds.length > 0) this.#telemetry.quotaExpired({ reservationIds })
    await purgeTombstones(this.#database.kysely, tombstoneDays)
  }

  /** One transaction: the reservation's row and the portion, both or neither. @throws NotTaken */
  #take(wanted: WantedReservation): Promise<Reserved> {
    return this.#database.transaction(async (tx) => {
      if (!(await insertReservation(tx, wanted))) {
        const known = await findReservation(tx, wanted.reservationId)
        if (known === undefined || known.state === 'released') {
          throw problems.reservation_released({ reservationId: wanted.reservationId })
        }
        const same =
          known.userId === wanted.userId &&
          known.cpu === wanted.cpu &&
          known.memory === wanted.memory &&
          known.storage === wanted.storage
        if (!same) throw problems.reservation_conflict({ reservationId: wanted.reservationId })
        return { kind: 'known', state: known.state }
      }
      const { userId } = wanted
      if (!(await takePortion(tx, { userId, portion: wanted, defaults: this.#defaults })))
        throw new NotTaken()
      return { kind: 'taken' }
    })
  }

  /** Why nothing was taken, in the caller's words. Read afterwards: it explains, it does not decide. */
  async #refusalOf(wanted: WantedReservation): Promise<Error> {
    const { userId } = wanted
    const account = await findAccount(this.#database.kysely, userId)
    if (account?.status === 'suspended') return problems.user_suspended({ userId })
    const exceeded = exceededBy(await this.#quotaOf(userId), wanted)
    this.#telemetry.quotaRefused({ userId, resource: exceeded?.resource ?? 'devices' })
    if (exceeded !== undefined) return problems.quota_exceeded({ userId, ...exceeded })
    // Something was released between the refusal and this look: it may fit now.
    return problems.quota_busy({ userId })
  }

  async #quotaOf(userId: UserId): Promise<Quota> {
    const quota = await findQuota(this.#database.kysely, userId, this.#defaults)
    if (quota === undefined) throw problems.user_not_found({ userId })
    return quota
  }
}
