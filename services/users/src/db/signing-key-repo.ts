import type { JWK } from 'jose'
import { type Kysely, sql } from 'kysely'
import type { KeyRecord } from '../domain/key-record.ts'
import type { UsersSchema } from './schema.ts'

export interface SigningKey {
  readonly kid: string
  readonly privateJwk: JWK
}

/** The key that signs now; undefined before the first start. */
export async function findActiveKey(db: Kysely<UsersSchema>): Promise<SigningKey | undefined> {
  const row = await db
    .selectFrom('signing_keys')
    .select(['kid', 'private_jwk'])
    .where('active', '=', true)
    .executeTakeFirst()
  return row && { kid: row.kid, privateJwk: row.private_jwk }
}

/** Makes a key the active one unless there is one already; true when it became it. */
export async function insertActiveKey(
  db: Kysely<UsersSchema>,
  key: SigningKey & { readonly publicJwk: JWK },
): Promise<boolean> {
  const inserted = await db
    .insertInto('signing_keys')
    .values({
      kid: key.kid,
      private_jwk: JSON.stringify(key.privateJwk),
      public_jwk: JSON.stringify(key.publicJwk),
      active: true,
    })
    .onConflict((conflict) => conflict.doNothing())
    .executeTakeFirst()
  return inserted.numInsertedOrUpdatedRows === 1n
}

/** The public halves of all keys, the next one's too, the newest first. */
export async function listPublicKeys(db: Kysely<UsersSchema>): Promise<JWK[]> {
  const rows = await db
    .selectFrom('signing_keys')
    .select('public_jwk')
    .orderBy('created_at', 'desc')
    .execute()
  return rows.map((row) => row.public_jwk)
}

/** All keys, the newest first. There are a handful. */
export async function listKeys(db: Kysely<UsersSchema>): Promise<KeyRecord[]> {
  const rows = await db
    .selectFrom('signing_keys')
    .select(['kid', 'active', 'created_at', 'activates_at', 'gone_at'])
    .orderBy('created_at', 'desc')
    .orderBy('kid')
    .execute()
  return rows.map(({ kid, active, created_at: createdAt, activates_at: activatesAt, gone_at: goneAt }) => ({
    ...{ kid, active, createdAt, activatesAt, goneAt },
  }))
}

/** Publishes a key that becomes the active one in `leadSeconds`; false when another is waiting already. */
export async function insertNextKey(
  tx: Kysely<UsersSchema>,
  key: SigningKey & { readonly publicJwk: JWK },
  leadSeconds: number,
): Promise<boolean> {
  const inserted = await sql`
    insert into signing_keys (kid, private_jwk, public_jwk, active, activates_at)
    values (${key.kid}, ${JSON.stringify(key.privateJwk)}::jsonb, ${JSON.stringify(key.publicJwk)}::jsonb, false,
            app_now() + make_interval(secs => ${leadSeconds}))
    on conflict do nothing`.execute(tx)
  return inserted.numAffectedRows === 1n
}

/**
 * Lets the next key take over when its time has come; the old one is published for `keepSeconds` more. Its row is locked
 * first, so of two that do this one does it. True when something changed.
 */
export async function promoteNextKey(tx: Kysely<UsersSchema>, keepSeconds: number): Promise<boolean> {
  const due = await sql<{ kid: string }>`
    select kid from signing_keys
    where not active and gone_at is null and activates_at <= app_now() for update skip locked`.execute(tx)
  const [next] = due.rows
  if (next === undefined) return false
  await sql`
    update signing_keys set active = false, gone_at = app_now() + make_interval(secs => ${keepSeconds})
    where active`.execute(tx)
  await sql`update signing_keys set active = true where kid = ${next.kid}`.execute(tx)
  return true
}

/** Deletes retired keys whose last token has expired; true when there were any. */
export async function dropGoneKeys(tx: Kysely<UsersSchema>): Promise<boolean> {
  const gone = await sql`delete from signing_keys where gone_at <= app_now()`.execute(tx)
  return gone.numAffectedRows !== 0n && gone.numAffectedRows !== undefined
}

/** Deletes every key: none of their tokens is good any more. */
export async function dropAllKeys(tx: Kysely<UsersSchema>): Promise<void> {
  await tx.deleteFrom('signing_keys').execute()
}

/** True when the active key is older than so many days and no next one waits. */
export async function isRotationDue(db: Kysely<UsersSchema>, maxAgeDays: number): Promise<boolean> {
  const due = await sql`
    select from signing_keys active
    where active and coalesce(activates_at, created_at) < app_now() - make_interval(days => ${maxAgeDays})
      and not exists (select from signing_keys where not active and gone_at is null)`.execute(db)
  return due.rows.length > 0
}
