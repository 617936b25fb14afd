import type { Caller } from '@cloudphone/contracts/access'
import type { Clock } from '@cloudphone/observe/clock'
import { accessTokens } from '@cloudphone/runtime/tokens'
import { importJWK, type JWK, SignJWT } from 'jose'

/** Signs access tokens with one key. */
export interface TokenSigner {
  readonly kid: string
  /** A token that says who the caller is, good for `lifeSeconds`. */
  sign(caller: Caller, lifeSeconds: number): Promise<string>
}

/** Opens a signer for an Ed25519 key (RFC 8037). */
export async function openTokenSigner(
  key: { readonly kid: string; readonly privateJwk: JWK },
  clock: Clock,
): Promise<TokenSigner> {
  const privateKey = await importJWK(key.privateJwk, accessTokens.algorithm)
  return {
    kid: key.kid,
    sign: (caller, lifeSeconds) => {
      const nowSeconds = Math.floor(clock.now().getTime() / 1000)
      return new SignJWT({ tid: caller.tenantId, role: caller.role, sid: caller.sessionId })
        .setProtectedHeader({ alg: accessTokens.algorithm, kid: key.kid, typ: 'JWT' })
        .setIssuer(accessTokens.issuer)
        .setAudience(accessTokens.audience)
        .setSubject(caller.userId)
        .setIssuedAt(nowSeconds)
        .setExpirationTime(nowSeconds + lifeSeconds)
        .sign(privateKey)
    },
  }
}
