import type { DeviceId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql } from 'kysely'
import type { DeviceRow, DevicesSchema } from './schema.ts'

/** Keeps the proof of a wipe; once per saga. */
export async function insertWipe(
  tx: Tx<DevicesSchema>,
  wipe: Insertable<DevicesSchema['device_wipes']>,
): Promise<void> {
  await tx.insertInto('device_wipes').values(wipe).execute()
}

/** Pooled phones that their last holder has left and that nobody has begun to wipe. */
export async function listSoiled(db: Kysely<DevicesSchema>, limit: number): Promise<DeviceId[]> {
  const rows = await db
    .selectFrom('devices')
    .select('id')
    .where('hygiene', '=', 'soiled')
    .limit(limit)
    .execute()
  return rows.map(({ id }) => id)
}

/** Locks a phone that is still soiled. Undefined when somebody was faster. */
export async function lockSoiled(tx: Tx<DevicesSchema>, id: DeviceId): Promise<DeviceRow | undefined> {
  return await tx
    .selectFrom('devices')
    .selectAll()
    .where('id', '=', id)
    .where('hygiene', '=', 'soiled')
    .forUpdate()
    .executeTakeFirst()
}

/** Proofs are kept for a year. */
export async function purgeWipes(tx: Tx<DevicesSchema>): Promise<void> {
  await sql`delete from device_wipes where wiped_at < app_now() - interval '1 year'`.execute(tx)
}
