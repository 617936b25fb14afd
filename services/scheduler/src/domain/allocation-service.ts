import { type Caller, may } from '@cloudphone/contracts/access'
import type { AllocationStatus } from '@cloudphone/contracts/api/scheduler-api'
import type { AllocationId, Ids, UserId } from '@cloudphone/contracts/id'
import type { Database, Tx } from '@cloudphone/db/database'
import { DatabaseUnavailable, isUniqueViolation } from '@cloudphone/db/errors'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { common } from '@cloudphone/runtime/problem'
import type { Sagas } from '@cloudphone/saga/engine'
import {
  findAllocation,
  findByRequest,
  insertAllocation,
  listAllocations,
  listDue,
} from '../db/allocation-repo.ts'
import { claimPhone, countPhones } from '../db/phone-repo.ts'
import type { AllocationRow, SchedulerSchema } from '../db/schema.ts'
import { findTenant } from '../db/user-repo.ts'
import { problems } from '../errors.ts'
import type { GrantDefinition } from '../sagas/allocation-grant.saga.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'
import { moves, releasedStatuses } from './allocation.ts'
import type { BeginRelease } from './release.ts'
import type { Sessions } from './sessions.ts'

export type { AllocationRow }

const SWEEP_BATCH = 200

export interface AllocationServiceDeps {
  readonly database: Database<SchedulerSchema>
  readonly sagas: Sagas
  readonly grant: GrantDefinition
  readonly beginRelease: BeginRelease
  readonly audit: Audit
  readonly sessions: Sessions
  readonly ids: Ids
  readonly telemetry: SchedulerTelemetry
}

/** Who may have which pooled phone, and for how long. */
export class AllocationService {
  readonly #deps: AllocationServiceDeps
  readonly #database: Database<SchedulerSchema>

  constructor(deps: AllocationServiceDeps) {
    this.#deps = deps
    this.#database = deps.database
  }

  /**
   * Reserves a session, then claims a free phone and starts its grant, in one commit. The same `requestKey` gets the first
   * allocation again.
   * @throws ProblemError `forbidden`, `user_not_found`, `quota_exceeded`, `user_suspended`, `no_device_available`.
   */
  async request(
    caller: Caller,
    wanted: { userId?: UserId | undefined; durationMinutes: number },
    requestKey: string,
  ): Promise<AllocationRow> {
    const userId = wanted.userId ?? caller.userId
    await this.#assertMayGive(caller, userId)
    const known = await findByRequest(this.#database.kysely, requestKey)
    if (known !== undefined) return this.#again(known)
    // Of each try its own: what a try that died has reserved runs out, and is no reason to refuse the next one.
    const reservationId = this.#deps.ids.next<'reservation'>()
    await this.#deps.sessions.reserve(reservationId, { userId, tenantId: caller.tenantId })
    try {
      const { durationMinutes } = wanted
      return await this.#claim(caller, { userId, durationMinutes, requestKey, reservationId })
    } catch (error) {
      // A lost connection leaves open whether it was claimed: then the reservation decides by its time.
      if (!(error instanceof DatabaseUnavailable)) await this.#deps.sessions.giveUp(reservationId)
      if (!isUniqueViolation(error, 'allocations_request_key')) throw error
      const first = await findByRequest(this.#database.kysely, requestKey)
      if (first === undefined) throw error
      return this.#again(first)
    }
  }

  /** What an earlier request of the same key, or its double beside us, has done. */
  #again(row: AllocationRow): AllocationRow {
    this.#deps.audit.nothingChanged()
    return row
  }

  async #claim(
    { tenantId }: Caller,
    {
      userId,
      durationMinutes,
      requestKey,
      reservationId,
    }: { userId: UserId; durationMinutes: number; requestKey: string; reservationId: string },
  ): Promise<AllocationRow> {
    const { audit, ids, grant, sagas, telemetry } = this.#deps
    const id = ids.next<'allocation'>()
    const sagaId = `${grant.type}-${ids.next<'saga'>()}`
    const row = await this.#database.transaction(async (tx: Tx<SchedulerSchema>) => {
      const phone = await claimPhone(tx, tenantId)
      if (phone === undefined) return undefined
      const { deviceId, fence, releaseFence } = phone
      const made = await insertAllocation(tx, {
        ...{ id, request_key: requestKey, tenant_id: tenantId, user_id: userId, status: 'PENDING' },
        ...{ device_id: deviceId, device_name: phone.name, fence, release_fence: releaseFence },
        ...{ duration_minutes: durationMinutes, grant_saga_id: sagaId },
        quota_reservation_id: reservationId,
      })
      await sagas.start(tx, {
        ...{ definition: grant, sagaId, businessKey: requestKey, subject: id, userId, tenantId },
        input: { allocationId: id, deviceId, userId, fence, releaseFence, reservationId },
      })
      const after = { userId, deviceId, durationMinutes, sagaId }
      await audit.add(tx, { verb: 'allocation.request', target: id, tenantId, after })
      return made
    })
    if (row === undefined) {
      telemetry.refused({ userId, reason: 'no_device_available' })
      throw problems.no_device_available({ pooled: await countPhones(this.#database.kysely, tenantId) })
    }
    telemetry.requested({ allocationId: id, deviceId: row.device_id, userId, sagaId })
    return row
  }

  /** @throws ProblemError `allocation_not_found`, `not_yours`. */
  async get(caller: Caller, allocationId: AllocationId): Promise<AllocationRow> {
    const row = await findAllocation(this.#database.kysely, allocationId)
    if (row === undefined || row.tenant_id !== caller.tenantId) {
      throw problems.allocation_not_found({ allocationId })
    }
    if (row.user_id !== caller.userId && !may(caller, 'allocations:any')) {
      throw problems.not_yours({ allocationId, permission: 'allocations:any' })
    }
    return row
  }

  /** A user's allocations in the caller's tenant. @throws ProblemError `forbidden`. */
  async list(
    caller: Caller,
    query: {
      userId: UserId
      status: AllocationStatus | undefined
      beforeId: string | undefined
      limit: number
    },
  ): Promise<AllocationRow[]> {
    if (query.userId !== caller.userId && !may(caller, 'allocations:any')) {
      throw common.forbidden({ permission: 'allocations:any' })
    }
    return await listAllocations(this.#database.kysely, { tenantId: caller.tenantId, ...query })
  }

  /**
   * Begins to take a phone back. Of one that is being taken back or was, it answers how that stands.
   * @throws ProblemError `allocation_not_found`, `not_yours`, `illegal_transition`.
   */
  async release(caller: Caller, allocationId: AllocationId): Promise<AllocationRow> {
    const known = await this.get(caller, allocationId)
    const reason = known.user_id === caller.userId ? 'user' : 'operator'
    const row = await this.#database.transaction((tx) =>
      this.#deps.beginRelease(tx, { allocationId, reason }),
    )
    if (row !== undefined) return row
    const now = await this.get(caller, allocationId)
    if (releasedStatuses.includes(now.status)) return this.#again(now)
    throw problems.illegal_transition({
      ...{ allocationId, status: now.status, allowed: moves.release.from.join(' or ') },
      sagaId: now.grant_saga_id,
    })
  }

  /** Begins the end of all that ran out of time or lost its phone longer than `graceMs` ago; returns how many it were. */
  async releaseDue(options: { graceMs: number; signal: AbortSignal }): Promise<number> {
    let released = 0
    for (;;) {
      const due = await listDue(this.#database.kysely, { graceMs: options.graceMs, limit: SWEEP_BATCH })
      for (const { id: allocationId, reason, endedAt } of due) {
        if (options.signal.aborted) return released
        const end = { allocationId, reason, endedAt }
        const row = await this.#database.transaction((tx) => this.#deps.beginRelease(tx, end))
        if (row !== undefined) released += 1
      }
      if (due.length < SWEEP_BATCH) return released
    }
  }

  async #assertMayGive(caller: Caller, userId: UserId): Promise<void> {
    if (userId === caller.userId) return
    if (!may(caller, 'allocations:any')) throw common.forbidden({ permission: 'allocations:any' })
    const tenantId = await findTenant(this.#database.kysely, userId)
    if (tenantId !== caller.tenantId) throw problems.user_not_found({ userId })
  }
}
