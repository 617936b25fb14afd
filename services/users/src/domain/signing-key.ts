import { accessTokens } from '@cloudphone/runtime/tokens'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK } from 'jose'
import type { Kysely } from 'kysely'
import type { UsersSchema } from '../db/schema.ts'
import { findActiveKey, insertActiveKey, type SigningKey } from '../db/signing-key-repo.ts'
import type { UsersTelemetry } from '../telemetry.ts'

/**
 * The key that all instances sign with. The first start makes it; of instances that start together one wins by the
 * unique index, and the others take the winner's.
 */
export async function ensureSigningKey(
  db: Kysely<UsersSchema>,
  telemetry: Pick<UsersTelemetry, 'signingKeyMade'>,
): Promise<SigningKey> {
  const known = await findActiveKey(db)
  if (known !== undefined) return known
  const made = await makeKey()
  if (await insertActiveKey(db, made)) telemetry.signingKeyMade({ kid: made.kid })
  const active = await findActiveKey(db)
  if (active === undefined) throw new Error('signing_keys has no active row right after one was ensured')
  return active
}

/** An Ed25519 pair whose id is its thumbprint (RFC 7638), so that the same key has the same id everywhere. */
export async function makeKey(): Promise<SigningKey & { publicJwk: JWK }> {
  const pair = await generateKeyPair(accessTokens.algorithm, { crv: 'Ed25519', extractable: true })
  const publicJwk = await exportJWK(pair.publicKey)
  const kid = await calculateJwkThumbprint(publicJwk)
  return {
    kid,
    privateJwk: { ...(await exportJWK(pair.privateKey)), kid },
    publicJwk: { ...publicJwk, kid, use: 'sig', alg: accessTokens.algorithm },
  }
}
