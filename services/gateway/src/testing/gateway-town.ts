import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Role } from '@cloudphone/contracts/access'
import { ExchangeApiKey, Jwks } from '@cloudphone/contracts/api/users-api'
import { systemIds, type TenantId, type UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { type Registry, staticRegistry } from '@cloudphone/registry/registry'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import { type Binding, bind, openHttpServer } from '@cloudphone/runtime/http-server'
import type { Platform } from '@cloudphone/runtime/platform'
import { defineProblems } from '@cloudphone/runtime/problem'
import { accessTokens, openServiceTokens, openTokenVerifier } from '@cloudphone/runtime/tokens'
import { exportJWK, generateKeyPair, type JSONWebKeySet, SignJWT } from 'jose'
import { gateway } from '../service.ts'

const serviceSecret = 'a secret that only the services of this test share'
const problems = defineProblems({ invalid_api_key: [401, 'The API key is unknown.'] })

/** A gateway with neighbours that speak HTTP on real sockets. */
export interface GatewayTown extends AsyncDisposable {
  readonly gateway: RunningService
  readonly url: string
  readonly registry: Registry
  /** API keys that the users service knows, and how often it was asked for each. */
  readonly apiKeys: Map<string, { userId: UserId; asked: number }>
  /** A service of raw HTTP, registered under this name. */
  neighbour(service: ServiceName, listener: RequestListener): Promise<Server>
  /** A service that answers by contract. */
  contractNeighbour(service: ServiceName, bindings: readonly Binding[]): Promise<void>
  token(options?: { userId?: UserId; role?: Role; lifeSeconds?: number }): Promise<string>
}

/** Starts it with limits off unless `env` sets some, and with the part of the users service that callers need. */
export function openGatewayTown(env: Record<string, string> = {}): Promise<GatewayTown> {
  return openTown(env, ['users'])
}

/** Starts a gateway whose neighbours are all still to come, the users service included. */
export function openEmptyGatewayTown(): Promise<GatewayTown> {
  return openTown({}, [])
}

async function openTown(env: Record<string, string>, present: readonly ServiceName[]): Promise<GatewayTown> {
  const { publicKey, privateKey } = await generateKeyPair(accessTokens.algorithm, { crv: 'Ed25519' })
  const keys: JSONWebKeySet = { keys: [{ ...(await exportJWK(publicKey)), kid: 'key-1' }] }
  const registry = staticRegistry()
  const closers: (() => Promise<unknown>)[] = []
  const now = () => new Date()
  const tenantId: TenantId = systemIds.next<'tenant'>()
  const apiKeys: GatewayTown['apiKeys'] = new Map()

  const token: GatewayTown['token'] = async ({
    userId = systemIds.next<'user'>(),
    role = 'member',
    lifeSeconds = 900,
  } = {}) => {
    const nowSeconds = Math.floor(Date.now() / 1000)
    return new SignJWT({ tid: tenantId, role, sid: 'session' })
      .setProtectedHeader({ alg: accessTokens.algorithm, kid: 'key-1' })
      .setIssuer(accessTokens.issuer)
      .setAudience(accessTokens.audience)
      .setSubject(userId)
      .setIssuedAt(nowSeconds)
      .setExpirationTime(nowSeconds + lifeSeconds)
      .sign(privateKey)
  }
  const contractNeighbour: GatewayTown['contractNeighbour'] = async (service, bindings) => {
    const app = await openHttpServer(
      {
        service,
        log: silentLog(),
        metrics: openMetrics(service),
        sharedMetrics: undefined,
        tokens: openTokenVerifier({ fetchKeys: async () => keys, now }),
        serviceTokens: openServiceTokens({ secret: serviceSecret, now }),
        idempotency: undefined,
        ready: async () => true,
        uploadLimitBytes: 1024 ** 3,
      },
      bindings,
    )
    await registry.register(service, await app.listen({ host: '127.0.0.1', port: 0 }))
    closers.push(() => app.close())
  }
  const neighbour: GatewayTown['neighbour'] = async (service, listener) => {
    const server = createServer(listener)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    await registry.register(service, `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    closers.push(async () => {
      server.closeAllConnections()
      server.close()
    })
    return server
  }
  // The verifier's keys come from any address of the users service, so all of them must have them.
  const withKeys: GatewayTown['contractNeighbour'] = (service, bindings) =>
    contractNeighbour(service, service === 'users' ? [...bindings, ...accounts] : bindings)
  const accounts = [
    bind(Jwks, async () => ({
      keys: keys.keys.map((key) => ({ ...key, kid: key.kid ?? '', kty: key.kty ?? '' })),
    })),
    bind(ExchangeApiKey, async ({ body }) => {
      const known = apiKeys.get(body.key)
      if (known === undefined) throw problems.invalid_api_key()
      known.asked += 1
      return { accessToken: await token({ userId: known.userId, lifeSeconds: 120 }), expiresIn: 120 }
    }),
  ]
  if (present.includes('users')) await withKeys('users', [])
  const limitsOff = {
    GATEWAY_LIMIT_PER_SECOND: '0',
    GATEWAY_LIMIT_PER_10_SECONDS: '0',
    GATEWAY_LIMIT_PER_MINUTE: '0',
  }
  const running = await startService(gateway, platformOf(registry, { ...limitsOff, ...env }))
  return {
    gateway: running,
    url: running.address,
    registry,
    apiKeys,
    neighbour,
    contractNeighbour: withKeys,
    token,
    [Symbol.asyncDispose]: async () => {
      await running.close()
      for (const close of closers) await close()
    },
  }
}

/** A stateless service touches neither bus nor blobs. */
function platformOf(registry: Registry, env: Record<string, string>): Platform {
  return {
    env,
    log: silentLog(),
    registry,
    bus: {} as Platform['bus'],
    blobs: {} as Platform['blobs'],
    crash: crashPoints(undefined),
    metrics: openMetrics('platform'),
    serviceSecret,
    databases: {},
    poolSize: 1,
    host: '127.0.0.1',
    portBase: 0,
  }
}

/** A listener that answers with what it was asked, as JSON. */
export function echo(request: IncomingMessage, response: ServerResponse): void {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({
        method: request.method,
        url: request.url,
        headers: request.headers,
        body: Buffer.concat(chunks).toString(),
      }),
    )
  })
}
