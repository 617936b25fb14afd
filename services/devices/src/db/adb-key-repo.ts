import { randomUUID } from 'node:crypto'
import type { DeviceId, UserId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql } from 'kysely'
import type { AdbKeyRow, DeviceRow, DevicesSchema } from './schema.ts'

type Reader = Kysely<DevicesSchema>

/** Keeps a key, or finds the one with the same fingerprint that this user has. */
export async function keepAdbKey(
  tx: Tx<DevicesSchema>,
  key: Insertable<DevicesSchema['adb_keys']>,
): Promise<{ row: AdbKeyRow; added: boolean }> {
  const inserted = await tx
    .insertInto('adb_keys')
    .values(key)
    .onConflict((on) => on.columns(['user_id', 'fingerprint']).doNothing())
    .returningAll()
    .executeTakeFirst()
  if (inserted !== undefined) return { row: inserted, added: true }
  const row = await tx
    .selectFrom('adb_keys')
    .selectAll()
    .where('user_id', '=', key.user_id)
    .where('fingerprint', '=', key.fingerprint)
    .executeTakeFirstOrThrow()
  return { row, added: false }
}

/** Locks the user's list of keys for this transaction, so that two additions cannot pass the limit together. */
export async function lockAdbKeys(tx: Tx<DevicesSchema>, userId: UserId): Promise<number> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`adb-keys:${userId}`}, 0))`.execute(tx)
  const row = await tx
    .selectFrom('adb_keys')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('user_id', '=', userId)
    .executeTakeFirstOrThrow()
  return Number(row.count)
}

/** True when there was one. */
export async function dropAdbKey(
  tx: Tx<DevicesSchema>,
  userId: UserId,
  id: string,
): Promise<Pick<AdbKeyRow, 'label' | 'fingerprint'> | undefined> {
  return await tx
    .deleteFrom('adb_keys')
    .where('id', '=', id)
    .where('user_id', '=', userId)
    .returning(['label', 'fingerprint'])
    .executeTakeFirst()
}

export async function listAdbKeys(
  db: Reader,
  userId: UserId,
  page: { beforeOrdinal: number | undefined; limit: number },
): Promise<AdbKeyRow[]> {
  let query = db.selectFrom('adb_keys').selectAll().where('user_id', '=', userId)
  if (page.beforeOrdinal !== undefined) query = query.where('ordinal', '<', page.beforeOrdinal)
  return await query
    .orderBy('ordinal', 'desc')
    .limit(page.limit + 1)
    .execute()
}

/** The lines of the keys that a device of this owner or holder accepts besides the platform's. */
export async function publicKeysOf(db: Reader, userId: UserId | null): Promise<string[]> {
  if (userId === null) return []
  const rows = await db
    .selectFrom('adb_keys')
    .select('public_key')
    .where('user_id', '=', userId)
    .orderBy('ordinal')
    .execute()
  return rows.map((row) => row.public_key)
}

/** The devices whose lists of keys depend on this user's must be given them anew. */
export async function wantKeysAnew(tx: Tx<DevicesSchema>, userId: UserId): Promise<DeviceId[]> {
  const rows = await tx
    .updateTable('devices')
    .set((eb) => ({ keys_wanted: eb('keys_wanted', '+', 1) }))
    .where((eb) => eb.or([eb('user_id', '=', userId), eb('holder_user_id', '=', userId)]))
    .returning('id')
    .execute()
  return rows.map((row) => row.id)
}

/** A claim on giving a device its keys: only its holder may do so, and only for a time. */
export interface KeysClaim {
  readonly device: DeviceRow
  readonly claim: string
}

/**
 * Claims the right to replace a device's keys for `seconds`. Undefined when another has it, when the device is gone, or when
 * its phone has the list it should have.
 */
export async function claimKeys(
  db: Reader,
  deviceId: DeviceId,
  seconds: number,
): Promise<KeysClaim | undefined> {
  const claim = randomUUID()
  const device = await db
    .updateTable('devices')
    .set({
      keys_claim: claim,
      keys_claim_until: sql<Date>`app_now() + ${seconds} * interval '1 second'`,
    })
    .where('id', '=', deviceId)
    .where('external_id', 'is not', null)
    .whereRef('keys_applied', '<', 'keys_wanted')
    .where((eb) => eb.or([eb('keys_claim', 'is', null), eb('keys_claim_until', '<=', sql<Date>`app_now()`)]))
    .returningAll()
    .executeTakeFirst()
  return device === undefined ? undefined : { device, claim }
}

/**
 * Ends a claim. `applied` is the number of the list that the phone has now; undefined when that failed. When the claim was
 * lost meanwhile, somebody else may have given the phone a newer list that ours has overwritten: it is wanted anew.
 */
export async function endKeysClaim(
  db: Reader,
  { device, claim }: KeysClaim,
  applied: number | undefined,
): Promise<void> {
  const ended = await db
    .updateTable('devices')
    .set({
      keys_claim: null,
      keys_claim_until: null,
      ...(applied !== undefined && { keys_applied: applied }),
    })
    .where('id', '=', device.id)
    .where('keys_claim', '=', claim)
    .executeTakeFirst()
  if (ended.numUpdatedRows > 0n || applied === undefined) return
  await db
    .updateTable('devices')
    .set((eb) => ({ keys_wanted: eb('keys_wanted', '+', 1) }))
    .where('id', '=', device.id)
    .execute()
}

export async function keysBehind(db: Reader, deviceId: DeviceId): Promise<boolean> {
  const row = await db
    .selectFrom('devices')
    .select('id')
    .where('id', '=', deviceId)
    .whereRef('keys_applied', '<', 'keys_wanted')
    .executeTakeFirst()
  return row !== undefined
}

/** Devices with a phone whose list of keys is not the one it should be. */
export async function listKeysBehind(db: Reader, limit: number): Promise<DeviceId[]> {
  const rows = await db
    .selectFrom('devices')
    .select('id')
    .whereRef('keys_applied', '<', 'keys_wanted')
    .where('external_id', 'is not', null)
    .where('status', '<>', 'DELETING')
    .limit(limit)
    .execute()
  return rows.map((row) => row.id)
}

export interface PlatformKey {
  readonly private_key: string
  readonly public_key: string
}

/** The platform's key pair: the first offer is kept for ever, later ones find it. */
export async function keepPlatformKey(db: Reader, offer: PlatformKey): Promise<PlatformKey> {
  await db
    .insertInto('platform_adb_key')
    .values({ ...offer, only_one: true })
    .onConflict((on) => on.column('only_one').doNothing())
    .execute()
  return await findPlatformKey(db).then((key) => key ?? offer)
}

export async function findPlatformKey(db: Reader): Promise<PlatformKey | undefined> {
  return await db.selectFrom('platform_adb_key').select(['private_key', 'public_key']).executeTakeFirst()
}
