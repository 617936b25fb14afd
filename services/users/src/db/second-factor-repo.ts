import type { UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

export interface FactorRecord {
  /** Sealed: see `openVault`. */
  readonly secret: Buffer
  readonly confirmed: boolean
}

export async function findFactor(db: Kysely<UsersSchema>, userId: UserId): Promise<FactorRecord | undefined> {
  const found = await sql<FactorRecord>`
    select secret, confirmed_at is not null as confirmed
    from second_factors where user_id = ${userId}`.execute(db)
  return found.rows[0]
}

/** Keeps a secret that is to be confirmed, in the place of an earlier such one; false when one is confirmed. */
export async function putFactor(tx: Kysely<UsersSchema>, userId: UserId, secret: Buffer): Promise<boolean> {
  const put = await sql`
    insert into second_factors as known (user_id, secret) values (${userId}, ${secret})
    on conflict (user_id) do update set secret = excluded.secret, last_step = 0
    where known.confirmed_at is null`.execute(tx)
  return put.numAffectedRows === 1n
}

/** Confirms the secret that the code was for; false when it is another by now, or confirmed. */
export async function confirmFactor(
  tx: Kysely<UsersSchema>,
  { userId, secret, step }: { userId: UserId; secret: Buffer; step: number },
): Promise<boolean> {
  const confirmed = await sql`
    update second_factors set confirmed_at = app_now(), last_step = ${step}
    where user_id = ${userId} and secret = ${secret} and confirmed_at is null`.execute(tx)
  return confirmed.numAffectedRows === 1n
}

/** Takes the code of a step: each once, and none that is older than the last (RFC 6238, section 5.2). */
export async function useStep(
  tx: Kysely<UsersSchema>,
  { userId, secret, step }: { userId: UserId; secret: Buffer; step: number },
): Promise<boolean> {
  const used = await sql`
    update second_factors set last_step = ${step}
    where user_id = ${userId} and secret = ${secret} and confirmed_at is not null
      and last_step < ${step}`.execute(tx)
  return used.numAffectedRows === 1n
}

/** Takes a recovery code, once. */
export async function useRecoveryCode(
  tx: Kysely<UsersSchema>,
  userId: UserId,
  codeHash: Buffer,
): Promise<boolean> {
  const used = await sql`
    update recovery_codes set used_at = app_now()
    from second_factors
    where recovery_codes.user_id = ${userId} and code_hash = ${codeHash} and used_at is null
      and second_factors.user_id = recovery_codes.user_id and confirmed_at is not null`.execute(tx)
  return used.numAffectedRows === 1n
}

/** Puts these recovery codes in the place of all earlier ones. */
export async function replaceRecoveryCodes(
  tx: Kysely<UsersSchema>,
  userId: UserId,
  codeHashes: readonly Buffer[],
): Promise<void> {
  await sql`delete from recovery_codes where user_id = ${userId}`.execute(tx)
  await tx
    .insertInto('recovery_codes')
    .values(codeHashes.map((code_hash) => ({ user_id: userId, code_hash })))
    .execute()
}

export async function countRecoveryCodes(db: Kysely<UsersSchema>, userId: UserId): Promise<number> {
  const found = await sql<{ left: number }>`
    select count(*)::int as left from recovery_codes
    where user_id = ${userId} and used_at is null`.execute(db)
  return found.rows[0]?.left ?? 0
}

/** Switches the second factor off; false when there was none. */
export async function deleteFactor(tx: Kysely<UsersSchema>, userId: UserId): Promise<boolean> {
  const deleted = await sql`delete from second_factors where user_id = ${userId}`.execute(tx)
  return deleted.numAffectedRows === 1n
}
