import type { Caller } from '@cloudphone/contracts/access'
import type { Clock } from '@cloudphone/observe/clock'
import { accessTokens, claimsOf } from '@cloudphone/runtime/tokens'
import { importJWK, SignJWT } from 'jose'
import type { SigningKey } from '../db/signing-key-repo.ts'

/** Signs access tokens with the key that is active. */
export interface TokenSigner {
  /** A token that says who the caller is, good for `lifeSeconds`. */
  sign(caller: Caller, lifeSeconds: number): Promise<string>
  /** The key may be another one now. */
  forgetKey(): void
}

interface LoadedKey {
  readonly kid: string
  readonly privateKey: Awaited<ReturnType<typeof importJWK>>
  readonly loadedAtMs: number
}

/** How long a key is used without asking whether it is the active one still: in case the news of another got lost. */
const trustKeyMs = 5_000

/** Opens a signer by Ed25519 (RFC 8037). `activeKey` is asked at most once in 5 s. */
export function openTokenSigner(activeKey: () => Promise<SigningKey>, clock: Clock): TokenSigner {
  let loading: Promise<LoadedKey> | undefined

  const load = async (): Promise<LoadedKey> => {
    const { kid, privateJwk } = await activeKey()
    const privateKey = await importJWK(privateJwk, accessTokens.algorithm)
    return { kid, privateKey, loadedAtMs: clock.monotonicMs() }
  }
  const current = async (): Promise<LoadedKey> => {
    const known = await loading?.catch(() => undefined)
    if (known !== undefined && clock.monotonicMs() - known.loadedAtMs < trustKeyMs) return known
    loading = load()
    return loading
  }

  return {
    sign: async (caller, lifeSeconds) => {
      const { kid, privateKey } = await current()
      const nowSeconds = Math.floor(clock.now().getTime() / 1000)
      return new SignJWT(claimsOf(caller))
        .setProtectedHeader({ alg: accessTokens.algorithm, kid, typ: 'JWT' })
        .setIssuer(accessTokens.issuer)
        .setAudience(accessTokens.audience)
        .setSubject(caller.userId)
        .setIssuedAt(nowSeconds)
        .setExpirationTime(nowSeconds + lifeSeconds)
        .sign(privateKey)
    },
    forgetKey: () => {
      loading = undefined
    },
  }
}
