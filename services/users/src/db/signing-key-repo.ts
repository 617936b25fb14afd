import type { JWK } from 'jose'
import type { Kysely } from 'kysely'
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

/** The public halves of all keys, the newest first. */
export async function listPublicKeys(db: Kysely<UsersSchema>): Promise<JWK[]> {
  const rows = await db
    .selectFrom('signing_keys')
    .select('public_jwk')
    .orderBy('created_at', 'desc')
    .execute()
  return rows.map((row) => row.public_jwk)
}
