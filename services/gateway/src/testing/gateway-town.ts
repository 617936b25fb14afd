import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Caller } from '@cloudphone/contracts/access'
import { ExchangeApiKey } from '@cloudphone/contracts/api/users-api'
import { systemIds, type UserId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import { bind } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import { openNeighbours } from '@cloudphone/testing/neighbours'
import { callerOf } from '@cloudphone/testing/token-mint'
import type { Town } from '@cloudphone/testing/town'
import { gateway } from '../service.ts'

const problems = defineProblems({ invalid_api_key: [401, 'The API key is unknown.'] })

/** A gateway with neighbours that speak HTTP on real sockets. */
export interface GatewayTown {
  readonly gateway: RunningService
  readonly url: string
  readonly neighbour: Town['neighbour']
  /** A service of raw HTTP, registered under this name. */
  rawNeighbour(service: ServiceName, listener: RequestListener): Promise<Server>
  /** An instance that somebody else runs. */
  register(service: ServiceName, address: string): Promise<void>
  token(who?: Partial<Caller> & { lifeSeconds?: number }): string
  /** A users service that knows the API keys that are put in here, and counts how often it was asked for each. */
  openApiKeys(): Promise<Map<string, { userId: UserId; asked: number }>>
  close(): Promise<void>
}

/**
 * Starts it in a town that tests may share, with a registry and so neighbours of its own. Limits are off unless `env` sets
 * some.
 */
export async function openGatewayTown(town: Town, env: Record<string, string> = {}): Promise<GatewayTown> {
  const limitsOff = {
    GATEWAY_LIMIT_PER_SECOND: '0',
    GATEWAY_LIMIT_PER_10_SECONDS: '0',
    GATEWAY_LIMIT_PER_MINUTE: '0',
  }
  const { platform, serviceTokens } = town
  const closing = new ClosingStack(platform.log)
  const registry = staticRegistry()
  const { neighbour, tokenFor } = await openNeighbours({ registry, serviceTokens, closing })
  const own = { ...platform, registry, env: { ...limitsOff, ...env } }
  const running = closing.add('gateway', await startService(gateway, own))
  const tenantId = systemIds.next<'tenant'>()
  const token: GatewayTown['token'] = ({ lifeSeconds, ...who } = {}) =>
    tokenFor(callerOf({ tenantId, ...who }), lifeSeconds)
  return {
    ...{ gateway: running, url: running.address, neighbour, token },
    register: (service, address) => registry.register(service, address),
    close: async () => {
      await running.close()
      await closing.close()
    },
    rawNeighbour: async (service, listener) => {
      const server = createServer(listener)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      closing.defer(service, async () => {
        server.closeAllConnections()
        server.close()
      })
      const { port } = server.address() as AddressInfo
      await registry.register(service, `http://127.0.0.1:${port}`)
      return server
    },
    openApiKeys: async () => {
      const known: Awaited<ReturnType<GatewayTown['openApiKeys']>> = new Map()
      const exchange = bind(ExchangeApiKey, async ({ body }) => {
        const found = known.get(body.key)
        if (found === undefined) throw problems.invalid_api_key()
        found.asked += 1
        return { accessToken: token({ userId: found.userId, lifeSeconds: 120 }), expiresIn: 120 }
      })
      await neighbour('users', [exchange])
      return known
    },
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
