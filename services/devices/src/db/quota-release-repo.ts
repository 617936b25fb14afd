import type { DeviceId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import type { Kysely } from 'kysely'
import type { DevicesSchema } from './schema.ts'

/** Notes that a device's quota must be given back, whatever becomes of this process. */
export async function oweQuotaRelease(tx: Tx<DevicesSchema>, deviceId: DeviceId): Promise<void> {
  await tx
    .insertInto('quota_releases')
    .values({ device_id: deviceId })
    .onConflict((on) => on.column('device_id').doNothing())
    .execute()
}

export async function listOwedReleases(db: Kysely<DevicesSchema>, limit: number): Promise<DeviceId[]> {
  const rows = await db
    .selectFrom('quota_releases')
    .select('device_id')
    .orderBy('created_at')
    .limit(limit)
    .execute()
  return rows.map((row) => row.device_id)
}

export async function settleRelease(db: Kysely<DevicesSchema>, deviceId: DeviceId): Promise<void> {
  await db.deleteFrom('quota_releases').where('device_id', '=', deviceId).execute()
}
