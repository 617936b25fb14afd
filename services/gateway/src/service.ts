import { publicRoutes } from '@cloudphone/contracts/routes'
import { defineStatelessService } from '@cloudphone/runtime/service'
import { GatewaySettings } from './config.ts'
import { openApiKeyExchange } from './domain/api-key-exchange.ts'
import { AuditSearch } from './domain/audit-search.ts'
import { clientAddress, proxiesOf } from './domain/client-address.ts'
import { PlatformDoctor } from './domain/doctor.ts'
import { Fleet } from './domain/fleet.ts'
import { openApiOf } from './domain/openapi.ts'
import { Operations } from './domain/operations.ts'
import { RateLimiter } from './domain/rate-limit.ts'
import { auditRoutes } from './http/audit.routes.ts'
import { boundRequests, headLimits } from './http/bounds.ts'
import { browserHeaders, guardBrowsers } from './http/browser.ts'
import { guardDoor } from './http/door.ts'
import { servePages } from './http/pages.ts'
import { platformRoutes } from './http/platform.routes.ts'
import { proxyRoutes } from './http/proxy.ts'
import { openBodyIntake } from './http/request-body.ts'
import { proxySockets } from './http/socket-proxy.ts'
import { openUpstream } from './http/upstream.ts'
import { openTelemetry } from './telemetry.ts'

const apiVersion = '0.1.0'

/** The one door for callers: knows them, limits them, and forwards to the service that owns what they ask for. */
export const gateway = defineStatelessService({
  name: 'gateway',
  settings: GatewaySettings,
  start: async ({
    settings,
    cache,
    registry,
    client,
    tokens,
    revocations,
    serviceTokens,
    clock,
    log,
    metrics,
    tracer,
    closing,
  }) => {
    const telemetry = openTelemetry(log, metrics)
    const upstream = closing.add('upstream', openUpstream({ registry, tracer, clock, telemetry }))
    const bodies = closing.add(
      'bodies',
      openBodyIntake(clock, {
        bytesPerSecond: settings.GATEWAY_BODY_MIN_BYTES_PER_SECOND,
        windowMs: settings.GATEWAY_BODY_WINDOW_MS,
      }),
    )
    const isTrustedProxy = proxiesOf(settings.GATEWAY_TRUSTED_PROXIES)
    const isBehindTls = settings.GATEWAY_BEHIND_TLS
    const headers = browserHeaders({ isBehindTls })
    const limiter = new RateLimiter(cache, [
      { requests: settings.GATEWAY_LIMIT_PER_SECOND, seconds: 1 },
      { requests: settings.GATEWAY_LIMIT_PER_10_SECONDS, seconds: 10 },
      { requests: settings.GATEWAY_LIMIT_PER_MINUTE, seconds: 60 },
    ])
    const apiKeys = openApiKeyExchange(client, clock)
    revocations.onChange(apiKeys.forget)
    return {
      http: {
        ...headLimits,
        ...(settings.GATEWAY_TRUSTED_PROXIES.length > 0 && { trustProxy: isTrustedProxy }),
      },
      routes: [
        ...platformRoutes({
          fleet: new Fleet(client),
          operations: new Operations(client),
          doctor: new PlatformDoctor(client, clock),
        }),
        ...auditRoutes(new AuditSearch(client)),
      ],
      extend: async (app) => {
        boundRequests(app, {
          connectionsPerAddress: settings.GATEWAY_CONNECTIONS_PER_ADDRESS,
          ...{ isTrustedProxy, telemetry },
        })
        guardBrowsers(app, { origins: settings.GATEWAY_CORS_ORIGINS, headers })
        const door = { tokens, apiKeys, limiter, telemetry }
        guardDoor(app, door)
        await servePages(app, openApiOf(publicRoutes, { version: apiVersion }))
        await proxyRoutes(app, {
          ...{ upstream, bodies, telemetry, serviceTokens, browserHeaders: headers },
          scheme: isBehindTls ? 'https' : 'http',
        })
        proxySockets(app, {
          ...{ upstream, door, telemetry },
          addressOf: ({ socket, headers }) =>
            clientAddress(
              socket.remoteAddress ?? '',
              String(headers['x-forwarded-for'] ?? ''),
              isTrustedProxy,
            ),
        })
      },
    }
  },
})
