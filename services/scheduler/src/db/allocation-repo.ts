import type { AllocationStatus } from '@cloudphone/contracts/api/scheduler-api'
import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import type { AllocationId, TenantId, UserId } from '@cloudphone/contracts/id'
import { type Insertable, type Kysely, sql } from 'kysely'
import { liveStatuses, moves } from '../domain/allocation.ts'
import type { AllocationRow, SchedulerSchema } from './schema.ts'

type Reader = Kysely<SchedulerSchema>

export async function findAllocation(db: Reader, id: AllocationId): Promise<AllocationRow | undefined> {
  return await db.selectFrom('allocations').selectAll().where('id', '=', id).executeTakeFirst()
}

/** What an earlier try of the same request has made. */
export async function findByRequest(db: Reader, requestKey: string): Promise<AllocationRow | undefined> {
  return await db
    .selectFrom('allocations')
    .selectAll()
    .where('request_key', '=', requestKey)
    .executeTakeFirst()
}

/** Throws the unique violation `allocations_request_key` when another try of the request was faster. */
export async function insertAllocation(
  tx: Reader,
  values: Insertable<SchedulerSchema['allocations']>,
): Promise<AllocationRow> {
  return await tx.insertInto('allocations').values(values).returningAll().executeTakeFirstOrThrow()
}

/** PENDING -> ACTIVE, with its times; undefined when it is not PENDING or something happened to its phone meanwhile. */
export async function activate(tx: Reader, id: AllocationId): Promise<AllocationRow | undefined> {
  const { rows } = await sql<AllocationRow>`
    update allocations
    set status = ${moves.activate.to}, allocated_at = app_now(),
        expires_at = app_now() + make_interval(mins => duration_minutes), version = version + 1
    where id = ${id} and status = any(${[...moves.activate.from]}) and doomed_reason is null
    returning *`.execute(tx)
  return rows[0]
}

/** PENDING -> FAILED: the grant was taken back. What befell the phone, if anything did, is the better detail. */
export async function failGrant(
  tx: Reader,
  id: AllocationId,
  detail: string,
): Promise<AllocationRow | undefined> {
  const { rows } = await sql<AllocationRow>`
    update allocations
    set status = ${moves.fail.to}, reason = 'grant_failed', detail = coalesce(nullif(doomed_detail, ''), ${detail}),
        released_at = app_now(), version = version + 1
    where id = ${id} and status = any(${[...moves.fail.from]})
    returning *`.execute(tx)
  return rows[0]
}

export interface Ending {
  readonly allocationId: AllocationId
  /** When given, only the hold under this fence is meant. */
  readonly fence?: number | undefined
  readonly reason: ReleaseReason
  readonly detail: string
  /** When the hold ended; now when absent. */
  readonly endedAt?: Date | undefined
  readonly sagaId: string
}

/**
 * ACTIVE -> RELEASING; undefined when it is not ACTIVE under that fence. The hold ends at `endedAt`, but neither before
 * it began nor later than now: other machines' clocks do not make anybody pay.
 */
export async function beginEnding(tx: Reader, ending: Ending): Promise<AllocationRow | undefined> {
  const { rows } = await sql<AllocationRow>`
    update allocations
    set status = ${moves.release.to}, reason = ${ending.reason}, detail = ${ending.detail},
        release_saga_id = ${ending.sagaId},
        released_at = greatest(allocated_at, least(app_now(), ${ending.endedAt ?? null}::timestamptz))
    where id = ${ending.allocationId} and status = any(${[...moves.release.from]})
      and (${ending.fence ?? null}::bigint is null or fence = ${ending.fence ?? null})
    returning *`.execute(tx)
  return rows[0]
}

/** Ends a release for good; undefined when it was ended before. */
export async function endAllocation(
  tx: Reader,
  id: AllocationId,
  move: 'finish' | 'expire',
): Promise<AllocationRow | undefined> {
  const { rows } = await sql<AllocationRow>`
    update allocations set status = ${moves[move].to}, version = version + 1
    where id = ${id} and status = any(${[...moves[move].from]})
    returning *`.execute(tx)
  return rows[0]
}

/**
 * Notes on a grant in hand that its phone was lost, so that it fails; an event that says why replaces one that did not.
 * False when it is not PENDING under that fence.
 */
export async function doomGrant(
  tx: Reader,
  doom: { allocationId: AllocationId; fence: number; reason: ReleaseReason; detail: string },
): Promise<boolean> {
  const doomed = await sql`
    update allocations
    set doomed_reason = coalesce(doomed_reason, ${doom.reason}),
        doomed_detail = coalesce(nullif(doomed_detail, ''), ${doom.detail})
    where id = ${doom.allocationId} and fence = ${doom.fence} and status = 'PENDING'`.execute(tx)
  return doomed.numAffectedRows === 1n
}

/** Notes on an ACTIVE allocation when its phone was first said to be in ERROR. */
export async function notePhoneLost(
  tx: Reader,
  lost: { allocationId: AllocationId; fence: number },
): Promise<void> {
  await sql`
    update allocations set phone_lost_at = app_now()
    where id = ${lost.allocationId} and fence = ${lost.fence} and status = 'ACTIVE' and phone_lost_at is null`.execute(
    tx,
  )
}

export interface Due {
  readonly id: AllocationId
  readonly reason: 'expired' | 'device_failed'
  readonly endedAt: Date
}

/** ACTIVE allocations whose time is over, or whose phone was lost longer than `graceMs` ago; the oldest first. */
export async function listDue(
  db: Reader,
  { graceMs, limit }: { graceMs: number; limit: number },
): Promise<Due[]> {
  const { rows } = await sql<{ id: AllocationId; expires_at: Date; lost_at: Date | null; expired: boolean }>`
    select id, expires_at, phone_lost_at as lost_at, expires_at <= app_now() as expired from allocations
    where status = 'ACTIVE'
      and (expires_at <= app_now()
           or phone_lost_at <= app_now() - ${graceMs}::int * interval '1 millisecond')
    order by expires_at limit ${limit}`.execute(db)
  return rows.map((row) =>
    row.lost_at !== null && row.lost_at < row.expires_at
      ? { id: row.id, reason: 'device_failed', endedAt: row.lost_at }
      : { id: row.id, reason: 'expired', endedAt: row.expires_at },
  )
}

/** A user's allocations in a tenant, the newest first, from below `beforeId` on; one more than `limit` if there are more. */
export async function listAllocations(
  db: Reader,
  query: {
    tenantId: TenantId
    userId: UserId
    status: AllocationStatus | undefined
    beforeId: string | undefined
    limit: number
  },
): Promise<AllocationRow[]> {
  let select = db
    .selectFrom('allocations')
    .selectAll()
    .where('tenant_id', '=', query.tenantId)
    .where('user_id', '=', query.userId)
    .orderBy('id', 'desc')
    .limit(query.limit + 1)
  if (query.status !== undefined) select = select.where('status', '=', query.status)
  if (query.beforeId !== undefined) select = select.where(sql<boolean>`id < ${query.beforeId}::uuid`)
  return await select.execute()
}

export interface HoldingFacts {
  readonly live: number
  readonly active: readonly { id: AllocationId; deviceId: AllocationRow['device_id'] }[]
  /** Sessions of quota that live allocations hold. */
  readonly sessions: readonly { reservationId: string; status: AllocationStatus }[]
  /** Phones with more than one live allocation. */
  readonly twice: readonly { deviceId: string; count: number }[]
  /** Phones that are leased to nobody, or held without being leased. */
  readonly adrift: readonly { deviceId: string; availability: string; allocationId: string | null }[]
}

/** Counts who holds what, from the rows alone. */
export async function compareHoldings(db: Reader): Promise<HoldingFacts> {
  const live = await db
    .selectFrom('allocations')
    .select(['id', 'device_id', 'status', 'quota_reservation_id'])
    .where('status', 'in', [...liveStatuses])
    .execute()
  const twice = await sql<{ deviceId: string; count: number }>`
    select device_id as "deviceId", count(*)::int as count from allocations
    where status = any(${[...liveStatuses]}) group by device_id having count(*) > 1 limit 100`.execute(db)
  const adrift = await sql<HoldingFacts['adrift'][number]>`
    select phone.device_id as "deviceId", phone.availability, held.id as "allocationId"
    from device_mirror phone
    left join allocations held on held.device_id = phone.device_id and held.status = any(${[...liveStatuses]})
    where (phone.availability = 'leased') <> (held.id is not null) limit 100`.execute(db)
  return {
    live: live.length,
    active: live
      .filter(({ status }) => status === 'ACTIVE')
      .map(({ id, device_id }) => ({ id, deviceId: device_id })),
    sessions: live.flatMap(({ status, quota_reservation_id: reservationId }) =>
      reservationId === null ? [] : [{ reservationId, status }],
    ),
    twice: twice.rows,
    adrift: adrift.rows,
  }
}
