import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import type { Caller } from '@cloudphone/contracts/access'
import type { Jwks } from '@cloudphone/contracts/api/users-api'
import { systemIds } from '@cloudphone/contracts/id'
import type { ResultOf } from '@cloudphone/contracts/route'
import { accessTokens, claimsOf } from '@cloudphone/runtime/tokens'

/** Makes access tokens as the users service does, with a key of its own. */
export interface TokenMint {
  readonly jwks: ResultOf<typeof Jwks>
  /** Good for 15 minutes when it does not say how long. */
  tokenFor(caller: Caller, lifeSeconds?: number): string
}

/** Somebody, as far as it is not said who: a member of a tenant of his own. */
export function callerOf(who: Partial<Caller> = {}): Caller {
  return {
    userId: systemIds.next<'user'>(),
    tenantId: systemIds.next<'tenant'>(),
    role: 'member',
    sessionId: randomUUID(),
    ...who,
  }
}

/** Opens a mint; its keys are what the users service of a test publishes. */
export function openTokenMint(): TokenMint {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const { issuer: iss, audience: aud, algorithm: alg } = accessTokens
  const kid = randomUUID()
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return {
    jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kty: 'OKP', kid, alg, use: 'sig' }] },
    tokenFor: (caller, lifeSeconds = 900) => {
      const iat = Math.floor(Date.now() / 1000)
      const claims = { iss, aud, sub: caller.userId, ...claimsOf(caller), iat, exp: iat + lifeSeconds }
      const signed = `${encode({ alg, kid })}.${encode(claims)}`
      return `${signed}.${sign(null, Buffer.from(signed), privateKey).toString('base64url')}`
    },
  }
}
