import { exportJWK, generateKeyPair, type JSONWebKeySet, type JWTPayload, SignJWT, UnsecuredJWT } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { accessTokens, openServiceTokens, openTokenVerifier } from './tokens.ts'

const userId = '0198a5a0-0000-7000-8000-000000000001'
const tenantId = '0198a5a0-0000-7000-8000-000000000002'
const start = new Date('2026-01-01T00:00:00Z')
const later = (seconds: number) => new Date(start.getTime() + seconds * 1000)

interface Key {
  readonly kid: string
  readonly privateKey: Awaited<ReturnType<typeof generateKeyPair>>['privateKey']
  readonly jwk: JSONWebKeySet['keys'][number]
}

async function makeKey(kid: string): Promise<Key> {
  const { privateKey, publicKey } = await generateKeyPair('EdDSA', { crv: 'Ed25519', extractable: true })
  return { kid, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg: 'EdDSA' } }
}

function sign(key: Key, claims: JWTPayload = {}): Promise<string> {
  return new SignJWT({ tid: tenantId, role: 'member', sid: 's1', ...claims })
    .setProtectedHeader({ alg: 'EdDSA', kid: key.kid })
    .setSubject(userId)
    .setIssuer(claims.iss ?? accessTokens.issuer)
    .setAudience(claims.aud ?? accessTokens.audience)
    .setIssuedAt(start)
    .setExpirationTime(later(900))
    .sign(key.privateKey)
}

let key: Key
let stranger: Key
beforeAll(async () => {
  key = await makeKey('one')
  stranger = await makeKey('one')
})

function verifier(options: { keys?: () => Key[]; now?: () => Date } = {}) {
  let fetches = 0
  const opened = openTokenVerifier({
    fetchKeys: async () => {
      fetches += 1
      return { keys: (options.keys?.() ?? [key]).map(({ jwk }) => jwk) }
    },
    now: options.now ?? (() => later(10)),
  })
  return { verify: (token: string) => opened.verify(token), fetches: () => fetches }
}

describe('an access token', () => {
  it('says who is calling', async () => {
    expect(await verifier().verify(await sign(key))).toEqual({
      userId,
      tenantId,
      role: 'member',
      sessionId: 's1',
    })
  })

  it('is verified once and then known, until it expires', async () => {
    let now = later(10)
    const { verify, fetches } = verifier({ now: () => now })
    const token = await sign(key)
    await verify(token)
    await verify(token)
    expect(fetches()).toBe(1)
    now = later(901)
    await expect(verify(token)).rejects.toMatchObject({ code: 'token_expired', status: 401 })
  })

  it.each<[string, () => Promise<string>]>([
    ['signed by a stranger under our key id', () => sign(stranger)],
    ['for another audience', () => sign(key, { aud: 'elsewhere' })],
    ['from another issuer', () => sign(key, { iss: 'elsewhere' })],
    ['with a role that does not exist', () => sign(key, { role: 'emperor' })],
    ['without a tenant', () => sign(key, { tid: undefined })],
    [
      'unsigned',
      async () => new UnsecuredJWT({ tid: tenantId, role: 'admin', sid: 's' }).setSubject(userId).encode(),
    ],
    [
      'signed by HMAC with the public key as its secret',
      async () =>
        new SignJWT({ tid: tenantId, role: 'admin', sid: 's' })
          .setProtectedHeader({ alg: 'HS256', kid: 'one' })
          .setSubject(userId)
          .setIssuer(accessTokens.issuer)
          .setAudience(accessTokens.audience)
          .setExpirationTime(later(900))
          .sign(new TextEncoder().encode(JSON.stringify(key.jwk).padEnd(32))),
    ],
    ['that is no token at all', async () => 'x.y.z'],
  ])('%s is refused', async (_what, make) => {
    await expect(verifier().verify(await make())).rejects.toMatchObject({
      code: 'invalid_token',
      status: 401,
    })
  })

  it('of a new key is accepted after a fresh look at the keys, and unknown keys do not cause a flood of looks', async () => {
    const next = await makeKey('two')
    let now = later(0)
    let keys = [key]
    const { verify, fetches } = verifier({ keys: () => keys, now: () => now })
    await verify(await sign(key))
    keys = [key, next]
    await expect(verify(await sign(next))).rejects.toMatchObject({ code: 'invalid_token' })
    expect(fetches()).toBe(1)
    now = later(6)
    expect(await verify(await sign(next))).toMatchObject({ userId })
    expect(fetches()).toBe(2)
  })
})

describe('a service token', () => {
  const tokens = openServiceTokens({ secret: 'a'.repeat(32), now: () => start })

  it('names the caller to the service it is for, and to no other', async () => {
    const token = await tokens.sign('devices', 'users')
    expect(await tokens.verify(token, 'users')).toBe('devices')
    await expect(tokens.verify(token, 'billing')).rejects.toMatchObject({ code: 'invalid_token' })
  })

  it('is worth nothing under another secret, or a minute later', async () => {
    const token = await tokens.sign('devices', 'users')
    const foreign = openServiceTokens({ secret: 'b'.repeat(32), now: () => start })
    await expect(foreign.verify(token, 'users')).rejects.toMatchObject({ code: 'invalid_token' })
    const late = openServiceTokens({ secret: 'a'.repeat(32), now: () => later(66) })
    await expect(late.verify(token, 'users')).rejects.toMatchObject({ code: 'invalid_token' })
  })
})
