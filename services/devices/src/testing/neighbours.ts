/* The services that devices talks to, as far as a test needs them: real HTTP servers that speak the contracts, over plain
 * maps that a test can look into. */
import { generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto'
import type { Role } from '@cloudphone/contracts/access'
import { GetApk } from '@cloudphone/contracts/api/apps-api'
import { CommitQuota, Jwks, ReleaseQuota, ReserveQuota } from '@cloudphone/contracts/api/users-api'
import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import type { Registry } from '@cloudphone/registry/registry'
import { type Binding, bind, openHttpServer } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import { accessTokens, openServiceTokens, openTokenVerifier } from '@cloudphone/runtime/tokens'

const problems = defineProblems({
  quota_exceeded: [403, 'The quota is used up.'],
  reservation_released: [409, 'The reservation was released.'],
  reservation_not_found: [404, 'There is no such reservation.'],
  app_not_found: [404, 'There is no such app.'],
})

export interface Person {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly token: string
}

export interface Neighbours extends AsyncDisposable {
  /** Reservations by id: what the users service would count. */
  readonly quota: Map<string, 'reserved' | 'committed' | 'released'>
  /** Users without any quota. */
  readonly poor: Set<string>
  readonly apks: Map<string, Buffer>
  person(role: Role, tenantId?: TenantId): Person
}

/** Starts a users and an apps service and makes them known. */
export async function startNeighbours(registry: Registry, secret: string): Promise<Neighbours> {
  const pair = generateKeyPairSync('ed25519')
  const kid = randomUUID()
  const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid, kty: 'OKP', alg: 'EdDSA', use: 'sig' }
  const quota: Neighbours['quota'] = new Map()
  const apks: Neighbours['apks'] = new Map()
  const poor: Neighbours['poor'] = new Set()
  const users = await listen('users', secret, [
    bind(Jwks, async () => ({ keys: [jwk] })),
    ...quotaBindings(quota, poor),
  ])
  const apps = await listen('apps', secret, [
    bind(GetApk, async ({ params }) => {
      const body = apks.get(params.appId)
      if (body === undefined) throw problems.app_not_found()
      return { body, sizeBytes: body.length }
    }),
  ])
  await registry.register('users', users.address)
  await registry.register('apps', apps.address)
  return {
    quota,
    apks,
    poor,
    person: (role, tenantId = systemIds.next<'tenant'>()) => {
      const userId = systemIds.next<'user'>()
      return { userId, tenantId, token: accessToken(pair.privateKey, kid, { userId, tenantId, role }) }
    },
    [Symbol.asyncDispose]: async () => {
      await users.close()
      await apps.close()
    },
  }
}

function quotaBindings(quota: Neighbours['quota'], poor: Neighbours['poor']): Binding[] {
  return [
    bind(ReserveQuota, async ({ body }) => {
      const known = quota.get(body.reservationId)
      if (known === 'released') throw problems.reservation_released()
      if (poor.has(body.userId)) throw problems.quota_exceeded()
      if (known === undefined) quota.set(body.reservationId, 'reserved')
      return { reservationId: body.reservationId, state: known ?? ('reserved' as const) }
    }),
    bind(CommitQuota, async ({ params }) => {
      const known = quota.get(params.reservationId)
      if (known === undefined) throw problems.reservation_not_found()
      if (known === 'released') throw problems.reservation_released()
      quota.set(params.reservationId, 'committed')
      return undefined
    }),
    bind(ReleaseQuota, async ({ params }) => {
      quota.set(params.reservationId, 'released')
      return undefined
    }),
  ]
}

async function listen(service: ServiceName, secret: string, bindings: readonly Binding[]) {
  const now = () => new Date()
  const app = await openHttpServer(
    {
      service,
      log: silentLog(),
      metrics: openMetrics(service),
      sharedMetrics: undefined,
      tokens: openTokenVerifier({ fetchKeys: async () => ({ keys: [] }), now }),
      serviceTokens: openServiceTokens({ secret, now }),
      idempotency: undefined,
      ready: async () => true,
      uploadLimitBytes: 1024,
    },
    bindings,
  )
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  return { address, close: () => app.close() }
}

function accessToken(
  key: KeyObject,
  kid: string,
  who: { userId: UserId; tenantId: TenantId; role: Role },
): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const issuedAt = Math.floor(Date.now() / 1000)
  const claims = {
    iss: accessTokens.issuer,
    aud: accessTokens.audience,
    sub: who.userId,
    tid: who.tenantId,
    role: who.role,
    sid: randomUUID(),
    iat: issuedAt,
    exp: issuedAt + 900,
  }
  const body = `${part({ alg: accessTokens.algorithm, kid })}.${part(claims)}`
  return `${body}.${sign(null, Buffer.from(body), key).toString('base64url')}`
}
