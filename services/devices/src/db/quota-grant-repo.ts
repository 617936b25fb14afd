import type { DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { DevicesSchema } from './schema.ts'

/** Unsettled phones of one user at a time; the constraint `quota_grants_five_each` has the same number. */
export const MOST_GRANTS = 5

/** A phone whose quota was not reserved yet. */
export interface Grant {
  readonly deviceId: DeviceId
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly cpuCores: number
  readonly memoryMb: number
  readonly storageMb: number
}

/** Notes that a phone's quota will be settled later; false when its user has five such phones already. Twice is once. */
export async function insertGrant(
  db: Kysely<DevicesSchema>,
  { deviceId, userId }: { deviceId: DeviceId; userId: UserId },
): Promise<boolean> {
  // Who meets another one at the same slot looks for the next.
  for (let look = 0; look <= MOST_GRANTS; look += 1) {
    const inserted = await sql`
      insert into quota_grants (device_id, user_id, slot)
      select ${deviceId}, ${userId}, free.slot
      from generate_series(1, ${MOST_GRANTS}::int) as free (slot)
      where not exists (
        select from quota_grants where user_id = ${userId} and quota_grants.slot = free.slot)
      order by free.slot limit 1
      on conflict do nothing`.execute(db)
    if (inserted.numAffectedRows === 1n || (await isGranted(db, deviceId))) return true
  }
  return false
}

export async function isGranted(db: Kysely<DevicesSchema>, deviceId: DeviceId): Promise<boolean> {
  const row = await db
    .selectFrom('quota_grants')
    .select('device_id')
    .where('device_id', '=', deviceId)
    .executeTakeFirst()
  return row !== undefined
}

/** How many of a user's phones are not settled. */
export async function countGrants(db: Kysely<DevicesSchema>, userId: UserId): Promise<number> {
  const { count } = await db
    .selectFrom('quota_grants')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('user_id', '=', userId)
    .executeTakeFirstOrThrow()
  return Number(count)
}

/** Unsettled phones; those that were refused last come last. */
export async function listGrants(db: Kysely<DevicesSchema>, limit: number): Promise<Grant[]> {
  const { rows } = await sql<Grant>`
    select one.device_id as "deviceId", one.user_id as "userId", device.tenant_id as "tenantId",
           device.cpu_cores as "cpuCores", device.memory_mb as "memoryMb", device.storage_mb as "storageMb"
    from quota_grants as one join devices as device on device.id = one.device_id
    order by one.refused_at nulls first, one.created_at limit ${limit}`.execute(db)
  return rows
}

export async function listGrantedIds(db: Kysely<DevicesSchema>): Promise<Set<DeviceId>> {
  const rows = await db.selectFrom('quota_grants').select('device_id').execute()
  return new Set(rows.map((row) => row.device_id))
}

export async function settleGrant(db: Kysely<DevicesSchema>, deviceId: DeviceId): Promise<void> {
  await db.deleteFrom('quota_grants').where('device_id', '=', deviceId).execute()
}

export async function noteRefused(db: Kysely<DevicesSchema>, deviceId: DeviceId): Promise<void> {
  await sql`update quota_grants set refused_at = app_now() where device_id = ${deviceId}`.execute(db)
}
