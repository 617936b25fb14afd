import type { DeviceStatus, Hygiene } from '@cloudphone/contracts/device'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql, type Updateable } from 'kysely'
import { type Move, moves } from '../domain/device.ts'
import type { DeviceRow, DevicesSchema, TombstoneRow } from './schema.ts'

type Reader = Kysely<DevicesSchema>
type Columns = Updateable<DevicesSchema['devices']>

/** For `updated_at`, by which nobody decides. */
const auditNow = sql<Date>`now() /* audit */`

/** Statuses of a saga that has not ended; the partial index of its subject has the same list. */
const liveSaga = sql`('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED')`

export async function findDevice(db: Reader, id: DeviceId): Promise<DeviceRow | undefined> {
  return await db.selectFrom('devices').selectAll().where('id', '=', id).executeTakeFirst()
}

export async function findDevices(db: Reader, ids: readonly DeviceId[]): Promise<DeviceRow[]> {
  return await db.selectFrom('devices').selectAll().where('id', 'in', ids).execute()
}

export async function findTombstone(db: Reader, id: DeviceId): Promise<TombstoneRow | undefined> {
  return await db.selectFrom('device_tombstones').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Writes the intent of a new device. Undefined when it is there already or was and is gone. */
export async function insertDevice(
  tx: Tx<DevicesSchema>,
  values: Insertable<DevicesSchema['devices']>,
): Promise<DeviceRow | undefined> {
  return await tx
    .insertInto('devices')
    .values(values)
    .onConflict((on) => on.column('id').doNothing())
    .returningAll()
    .executeTakeFirst()
}

/**
 * Moves a device along an edge of the transition table and counts `events` version steps, one for each event that the
 * caller tells of it. Undefined when the device is gone or not in one of the edge's statuses.
 */
export async function moveDevice(
  tx: Tx<DevicesSchema>,
  id: DeviceId,
  move: Move,
  change: { set?: Columns; events: number; atVersion?: number },
): Promise<DeviceRow | undefined> {
  const { from, to } = moves[move]
  let query = tx
    .updateTable('devices')
    .set({ ...change.set, status: to, updated_at: auditNow })
    .set((eb) => ({ version: eb('version', '+', change.events) }))
    .where('id', '=', id)
    .where('status', 'in', [...from])
  if (change.atVersion !== undefined) query = query.where('version', '=', change.atVersion)
  return await query.returningAll().executeTakeFirst()
}

/** Changes columns without a move. Undefined when the device is gone. */
export async function touchDevice(
  tx: Tx<DevicesSchema>,
  id: DeviceId,
  change: { set: Columns; events: number },
): Promise<DeviceRow | undefined> {
  return await tx
    .updateTable('devices')
    .set({ ...change.set, updated_at: auditNow })
    .set((eb) => ({ version: eb('version', '+', change.events) }))
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
}

/** Takes the row away and leaves a tombstone; the caller has released what the device held. Undefined when it was gone. */
export async function buryDevice(
  tx: Tx<DevicesSchema>,
  id: DeviceId,
  grave: { sagaId: string; reason: string; kind: TombstoneRow['kind'] },
): Promise<DeviceRow | undefined> {
  const row = await tx.deleteFrom('devices').where('id', '=', id).returningAll().executeTakeFirst()
  if (row === undefined) return undefined
  await tx
    .insertInto('device_tombstones')
    .values({
      id,
      saga_id: grave.sagaId,
      reason: grave.reason,
      kind: grave.kind,
      tenant_id: row.tenant_id,
      user_id: row.user_id,
    })
    .onConflict((on) => on.column('id').doNothing())
    .execute()
  return row
}

export async function purgeTombstones(tx: Tx<DevicesSchema>): Promise<number> {
  const gone =
    await sql`delete from device_tombstones where deleted_at < app_now() - interval '30 days'`.execute(tx)
  return Number(gone.numAffectedRows ?? 0)
}

export interface DeviceFilter {
  readonly tenantId: TenantId
  /** Only devices that this user owns or holds. */
  readonly visibleTo: UserId | undefined
  readonly status: DeviceStatus | undefined
  readonly userId: UserId | undefined
  readonly pool: boolean | undefined
  readonly beforeOrdinal: number | undefined
  readonly limit: number
}

/** Newest first; one row more than the limit, which tells whether there is a next page. */
export async function listDevices(db: Reader, filter: DeviceFilter): Promise<DeviceRow[]> {
  let query = db.selectFrom('devices').selectAll().where('tenant_id', '=', filter.tenantId)
  const { visibleTo, userId, status, pool, beforeOrdinal } = filter
  for (const user of [visibleTo, userId]) {
    if (user !== undefined) {
      query = query.where((eb) => eb.or([eb('user_id', '=', user), eb('holder_user_id', '=', user)]))
    }
  }
  if (status !== undefined) query = query.where('status', '=', status)
  if (pool !== undefined) query = query.where('user_id', pool ? 'is' : 'is not', null)
  if (beforeOrdinal !== undefined) query = query.where('ordinal', '<', beforeOrdinal)
  return await query
    .orderBy('ordinal', 'desc')
    .limit(filter.limit + 1)
    .execute()
}

/** Raises the fence and names the holder; what a holder leaves is soiled. Undefined when the fence is not above the device's, or the device is not pooled. */
export async function raiseFence(
  tx: Tx<DevicesSchema>,
  id: DeviceId,
  holder: { fence: number; allocationId: AllocationId | null; userId: UserId | null },
): Promise<DeviceRow | undefined> {
  let query = tx
    .updateTable('devices')
    .set({
      fence: holder.fence,
      allocation_id: holder.allocationId,
      holder_user_id: holder.userId,
      updated_at: auditNow,
    })
    .set((eb) => ({
      keys_wanted: eb('keys_wanted', '+', 1),
      hygiene: sql<Hygiene>`case when allocation_id is not null then 'soiled' else hygiene end`,
    }))
    .where('id', '=', id)
    .where('user_id', 'is', null)
    .where('fence', '<', holder.fence)
  if (holder.allocationId !== null) query = query.where('status', '=', 'RUNNING')
  return await query.returningAll().executeTakeFirst()
}

/** Every device of a node or not yet on one, with whether a saga about it is still going on. */
export interface ObservedDevice extends DeviceRow {
  readonly busy: boolean
}

export async function observeDevices(db: Reader): Promise<ObservedDevice[]> {
  return await db
    .selectFrom('devices')
    .selectAll('devices')
    .select(
      sql<boolean>`exists (select from saga_state s where s.subject = devices.id::text and s.status in ${liveSaga})`.as(
        'busy',
      ),
    )
    .execute()
}

/** The live saga about a device, if there is one. */
export async function liveSagaOf(db: Reader, id: DeviceId): Promise<string | undefined> {
  const found = await sql<{ saga_id: string }>`
    select saga_id from saga_state where subject = ${id} and status in ${liveSaga}`.execute(db)
  return found.rows[0]?.saga_id
}

/** Remembers that these phones were seen alive at that moment. No event, no version. */
export async function markAlive(db: Reader, ids: readonly DeviceId[], at: Date): Promise<void> {
  if (ids.length === 0) return
  await db
    .updateTable('devices')
    .set({ last_active_at: at })
    .where('id', 'in', [...ids])
    .where('status', '=', 'RUNNING')
    .execute()
}

/** Adopts the generation of a phone that rebooted by itself. */
export async function adoptGeneration(db: Reader, id: DeviceId, generation: number): Promise<void> {
  await db
    .updateTable('devices')
    .set({ generation })
    .where('id', '=', id)
    .where('status', '=', 'RUNNING')
    .where('generation', '<', generation)
    .execute()
}

export async function dueRestarts(db: Reader): Promise<DeviceRow[]> {
  return await db
    .selectFrom('devices')
    .selectAll()
    .where('status', '=', 'ERROR')
    .where('restart_at', '<=', sql<Date>`app_now()`)
    .orderBy('restart_at')
    .limit(100)
    .execute()
}

/** Takes a due restart, so that two loops do not both start it. */
export async function takeRestart(tx: Tx<DevicesSchema>, id: DeviceId): Promise<DeviceRow | undefined> {
  return await tx
    .updateTable('devices')
    .set({ restart_at: null })
    .where('id', '=', id)
    .where('status', '=', 'ERROR')
    .where('restart_at', '<=', sql<Date>`app_now()`)
    .returningAll()
    .executeTakeFirst()
}

/** When to start a failed device again, counted from now by the database's clock. */
export async function scheduleRestart(
  tx: Tx<DevicesSchema>,
  id: DeviceId,
  restart: { delayMs: number; attempts: number },
): Promise<void> {
  await tx
    .updateTable('devices')
    .set({
      restart_at: sql<Date>`app_now() + ${restart.delayMs} * interval '1 millisecond'`,
      restart_attempts: restart.attempts,
    })
    .where('id', '=', id)
    .where('status', '=', 'ERROR')
    .execute()
}

export async function listToResume(db: Reader): Promise<DeviceId[]> {
  const rows = await db.selectFrom('devices').select('id').where('resume_on_start', '=', true).execute()
  return rows.map((row) => row.id)
}

export async function takeResume(tx: Tx<DevicesSchema>, id: DeviceId): Promise<DeviceRow | undefined> {
  return await tx
    .updateTable('devices')
    .set({ resume_on_start: false })
    .where('id', '=', id)
    .where('resume_on_start', '=', true)
    .where('status', '=', 'STOPPED')
    .returningAll()
    .executeTakeFirst()
}

/**
 * Locks a device until the transaction ends. Statements after it see every saga and every holder that was there when the
 * lock was granted, so a decision under the lock cannot be overtaken.
 */
export async function lockDevice(tx: Tx<DevicesSchema>, id: DeviceId): Promise<DeviceRow | undefined> {
  return await tx.selectFrom('devices').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}
