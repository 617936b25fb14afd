import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'

/** One function per fact of the gateway: a counter, and a log line where somebody may have to act. */
export interface GatewayTelemetry {
  limited(fact: { kind: 'user' | 'address' }): void
  callerRefused(fact: { code: string }): void
  upstreamFailed(fact: { service: string; requestId: string; err: unknown }): void
  socketOpened(): void
  socketClosed(): void
}

/** Reports to a log and to metrics. */
export function openTelemetry(log: Logger, metrics: Metrics): GatewayTelemetry {
  const limited = metrics.counter({
    name: 'gateway_rate_limited_total',
    help: 'Requests refused because their caller sent too many, by how the caller is known.',
    labels: ['kind'],
  })
  const refused = metrics.counter({
    name: 'gateway_callers_refused_total',
    help: 'Requests with a token or an API key that is not valid, by the code of the refusal.',
    labels: ['code'],
  })
  const failed = metrics.counter({
    name: 'gateway_upstream_failures_total',
    help: 'Requests for which no instance of a service answered.',
    labels: ['service'],
  })
  const sockets = metrics.gauge({ name: 'gateway_sockets', help: 'WebSockets that are open through here.' })
  return {
    limited: (fact) => limited.inc(fact),
    callerRefused: (fact) => refused.inc(fact),
    upstreamFailed: ({ service, requestId, err }) => {
      failed.inc({ service })
      log.warn({ event: 'upstream.failed', service, requestId, err })
    },
    socketOpened: () => sockets.inc(),
    socketClosed: () => sockets.dec(),
  }
}
