import { defineStatelessService } from '@cloudphone/runtime/service'
import { GatewaySettings } from './config.ts'
import { openApiKeyExchange } from './domain/api-key-exchange.ts'
import { RateLimiter } from './domain/rate-limit.ts'
import { guardDoor } from './http/door.ts'
import { proxyRoutes } from './http/proxy.ts'
import { openUpstream } from './http/upstream.ts'
import { openTelemetry } from './telemetry.ts'

/** The one door for callers: knows them, limits them, and forwards to the service that owns what they ask for. */
export const gateway = defineStatelessService({
  name: 'gateway',
  settings: GatewaySettings,
  start: async ({ settings, registry, client, tokens, clock, log, metrics, closing }) => {
    const telemetry = openTelemetry(log, metrics)
    const upstream = closing.add('upstream', openUpstream(registry))
    const limiter = new RateLimiter([
      { requests: settings.GATEWAY_LIMIT_PER_SECOND, seconds: 1 },
      { requests: settings.GATEWAY_LIMIT_PER_10_SECONDS, seconds: 10 },
      { requests: settings.GATEWAY_LIMIT_PER_MINUTE, seconds: 60 },
    ])
    const apiKeys = openApiKeyExchange(client, clock)
    return {
      routes: [],
      extend: async (app) => {
        guardDoor(app, { tokens, apiKeys, limiter, clock, telemetry })
        await proxyRoutes(app, { upstream, telemetry })
      },
    }
  },
})
