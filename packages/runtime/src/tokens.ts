import { createHash } from 'node:crypto'
import { type Caller, Role } from '@cloudphone/contracts/access'
import { TenantId, UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { createLocalJWKSet, errors, type JSONWebKeySet, jwtVerify, SignJWT } from 'jose'
import { LRUCache } from 'lru-cache'
import { z } from 'zod'
import { common, ProblemError } from './problem.ts'

/** What an access token must say; set by the users service, checked by everybody. */
export const accessTokens = { issuer: 'cloudphone', audience: 'cloudphone-api', algorithm: 'EdDSA' } as const

const Claims = z.object({ sub: UserId, tid: TenantId, role: Role, sid: z.string(), exp: z.number() })

/** Verifies access tokens. */
export interface TokenVerifier {
  /** @throws ProblemError `token_expired` or `invalid_token`. */
  verify(token: string): Promise<Caller>
}

/**
 * Verifies EdDSA access tokens by the users service's keys. Verified tokens are kept by hash until they expire, since one
 * verification costs 118 us of CPU (measured). An unknown key id makes it fetch the keys anew, at most once in 5 s.
 */
export function openTokenVerifier(options: {
  fetchKeys: () => Promise<JSONWebKeySet>
  now: () => Date
}): TokenVerifier {
  const seen = new LRUCache<string, { caller: Caller; expiresAtMs: number }>({ max: 10_000 })
  let keys: { find: ReturnType<typeof createLocalJWKSet>; fetchedAtMs: number } | undefined
  let fetching: Promise<void> | undefined

  const refresh = async () => {
    fetching ??= (async () => {
      try {
        keys = { find: createLocalJWKSet(await options.fetchKeys()), fetchedAtMs: options.now().getTime() }
      } finally {
        fetching = undefined
      }
    })()
    await fetching
  }

  const check = async (token: string) => {
    if (keys === undefined) await refresh()
    if (keys === undefined) throw common.service_unavailable({ service: 'users' })
    return jwtVerify(token, keys.find, {
      issuer: accessTokens.issuer,
      audience: accessTokens.audience,
      algorithms: [accessTokens.algorithm],
      currentDate: options.now(),
    })
  }

  const checkWithFreshKeys = async (token: string) => {
    try {
      return await check(token)
    } catch (error) {
      const stale = keys === undefined || options.now().getTime() - keys.fetchedAtMs > 5_000
      if (!(error instanceof errors.JWKSNoMatchingKey) || !stale) throw error
      await refresh()
      return check(token)
    }
  }

  return {
    verify: async (token) => {
      const hash = createHash('sha256').update(token).digest('base64')
      const known = seen.get(hash)
      if (known !== undefined) {
        if (known.expiresAtMs <= options.now().getTime()) throw common.token_expired()
        return known.caller
      }
      try {
        const claims = Claims.parse((await checkWithFreshKeys(token)).payload)
        const caller = { userId: claims.sub, tenantId: claims.tid, role: claims.role, sessionId: claims.sid }
        seen.set(hash, { caller, expiresAtMs: claims.exp * 1000 })
        return caller
      } catch (error) {
        if (error instanceof ProblemError) throw error
        if (error instanceof errors.JWTExpired) throw common.token_expired()
        throw common.invalid_token()
      }
    },
  }
}

/** Signs and verifies the short tokens by which services know each other. */
export interface ServiceTokens {
  /** For one call to one service; good for 60 s. */
  sign(from: ServiceName, to: ServiceName): Promise<string>
  /** The name of the calling service. @throws ProblemError `invalid_token`. */
  verify(token: string, self: ServiceName): Promise<ServiceName>
}

/** HS256 over the platform's secret, which every process of one platform shares and nobody else has. */
export function openServiceTokens(options: { secret: string; now: () => Date }): ServiceTokens {
  const key = new TextEncoder().encode(options.secret)
  const cache = new LRUCache<string, { token: string; untilMs: number }>({ max: 100 })
  return {
    sign: async (from, to) => {
      const nowMs = options.now().getTime()
      const kept = cache.get(`${from}>${to}`)
      if (kept !== undefined && kept.untilMs > nowMs && kept.untilMs < nowMs + 60_000) return kept.token
      const token = await new SignJWT({})
        .setProtectedHeader({ alg: 'HS256' })
        .setIssuer('cloudphone-service')
        .setSubject(from)
        .setAudience(to)
        .setIssuedAt(Math.floor(nowMs / 1000))
        .setExpirationTime(Math.floor(nowMs / 1000) + 60)
        .sign(key)
      cache.set(`${from}>${to}`, { token, untilMs: nowMs + 30_000 })
      return token
    },
    verify: async (token, self) => {
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: ['HS256'],
          issuer: 'cloudphone-service',
          audience: self,
          currentDate: options.now(),
          clockTolerance: 5,
        })
        return payload.sub as ServiceName
      } catch {
        // Whatever is wrong with it, the caller learns only that it is.
        throw common.invalid_token()
      }
    },
  }
}
