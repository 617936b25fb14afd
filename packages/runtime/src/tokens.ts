import { hash } from 'node:crypto'
import { type Caller, Permission, Role } from '@cloudphone/contracts/access'
import { TenantId, UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { createLocalJWKSet, errors, type JSONWebKeySet, jwtVerify, SignJWT } from 'jose'
import { LRUCache } from 'lru-cache'
import { z } from 'zod'
import { common, ProblemError } from './problem.ts'
import type { RevocationWatch } from './revocations.ts'

/** What an access token must say; set by the users service, checked by everybody. */
export const accessTokens = { issuer: 'cloudphone', audience: 'cloudphone-api', algorithm: 'EdDSA' } as const

/** An API key may have been narrowed to a permission that this version does not know: it holds the others. */
const Scopes = z
  .array(z.string())
  .transform((names) => names.filter((name): name is Permission => Permission.safeParse(name).success))

const Claims = z.object({
  ...{ sub: UserId, tid: TenantId, role: Role, sid: z.string(), exp: z.number() },
  /** Of the platform's own tenant. */
  plt: z.literal(true).optional(),
  scp: Scopes.optional(),
  /** The issue of the user's tokens. */
  ver: z.int().min(0).optional(),
})

/** The caller as the claims of an access token; the users service signs them. */
export function claimsOf({ tenantId, role, sessionId, isPlatform, scopes, epoch }: Caller) {
  return {
    ...{ tid: tenantId, role, sid: sessionId },
    ...(isPlatform === true && { plt: true }),
    ...(scopes !== undefined && { scp: scopes }),
    ...(epoch !== undefined && epoch > 0 && { ver: epoch }),
  }
}

function callerOf({ sub, tid, role, sid, plt, scp, ver }: z.output<typeof Claims>): Caller {
  return {
    ...{ userId: sub, tenantId: tid, role, sessionId: sid },
    ...(plt !== undefined && { isPlatform: plt }),
    ...(scp !== undefined && { scopes: scp }),
    ...(ver !== undefined && { epoch: ver }),
  }
}

/** Verifies access tokens. */
export interface TokenVerifier {
  /** @throws ProblemError `token_expired`, `token_revoked` or `invalid_token`. */
  verify(token: string): Promise<Caller>
}

/**
 * Verifies EdDSA access tokens by the users service's keys. Verified tokens are kept by hash until they expire, since one
 * verification costs 118 us of CPU (measured). An unknown key id makes it fetch the keys anew, at most once in 5 s.
 */
export function openTokenVerifier(options: {
  fetchKeys: () => Promise<JSONWebKeySet>
  now: () => Date
  /** What was revoked; without it (a test of the signature alone) a good token is good. */
  revocations?: Pick<RevocationWatch, 'known' | 'isRevoked' | 'onChange'>
}): TokenVerifier {
  const { revocations } = options
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

  // A key that was taken back must not live on in what was verified by it.
  revocations?.onChange((change) => {
    if (!change.keys) return
    seen.clear()
    keys = undefined
  })

  const standing = async (caller: Caller): Promise<Caller> => {
    await revocations?.known()
    if (revocations?.isRevoked(caller)) throw common.token_revoked()
    return caller
  }

  return {
    verify: async (token) => {
      const digest = hash('sha256', token, 'base64')
      const known = seen.get(digest)
      if (known !== undefined) {
        if (known.expiresAtMs <= options.now().getTime()) throw common.token_expired()
        return standing(known.caller)
      }
      try {
        const claims = Claims.parse((await checkWithFreshKeys(token)).payload)
        const caller = callerOf(claims)
        seen.set(digest, { caller, expiresAtMs: claims.exp * 1000 })
        return await standing(caller)
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
  // Each token comes with thousands of calls, and checking it once more costs a turn of another thread. Only good ones are
  // kept, and not beyond their time.
  const seen = new LRUCache<string, { from: ServiceName; untilMs: number }>({ max: 500 })
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
      const now = options.now()
      const known = seen.get(`${self} ${token}`)
      if (known !== undefined && now.getTime() < known.untilMs) return known.from
      try {
        const { payload } = await jwtVerify(token, key, {
          algorithms: ['HS256'],
          issuer: 'cloudphone-service',
          audience: self,
          currentDate: now,
          clockTolerance: 5,
        })
        const from = payload.sub as ServiceName
        seen.set(`${self} ${token}`, { from, untilMs: (payload.exp ?? 0) * 1000 })
        return from
      } catch {
        // Whatever is wrong with it, the caller learns only that it is.
        throw common.invalid_token()
      }
    },
  }
}
