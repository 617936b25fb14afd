import type { ServiceName } from '@cloudphone/contracts/services'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { BalancerEvents, BreakerState } from './domain/balancer.ts'

/** How the instances of a service stand. */
export interface UpstreamState {
  readonly service: ServiceName
  readonly pending: number
  readonly ejected: number
  readonly breaker: BreakerState
}

/** One function per fact of the gateway: a counter, and a log line where somebody may have to act. */
export interface GatewayTelemetry {
  limited(fact: { kind: 'user' | 'address' }): void
  /** An address has too many open. */
  connectionRefused(): void
  callerRefused(fact: { code: string }): void
  upstreamFailed(fact: { service: string; requestId: string; err: unknown }): void
  /** A request goes to an instance once more; `never sent` costs nothing but a connection. */
  retried(fact: { service: string; why: 'never sent' | 'broken' | 'answer' }): void
  balancerEvents(service: ServiceName): BalancerEvents
  /** Who is asked at each scrape. */
  watchUpstream(look: () => readonly UpstreamState[]): void
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
  const connections = metrics.counter({
    name: 'gateway_connections_refused_total',
    help: 'Connections refused because their address had too many.',
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
  const retries = metrics.counter({
    name: 'gateway_upstream_retries_total',
    help: 'Requests that went to an instance once more, by what had become of the first try.',
    labels: ['service', 'why'],
  })
  const ejections = metrics.counter({
    name: 'gateway_upstream_ejections_total',
    help: 'Instances put out of rotation because their connections or their answers failed.',
    labels: ['service'],
  })
  const openings = metrics.counter({
    name: 'gateway_breaker_opened_total',
    help: 'How often requests for a service began to be refused because no instance of it answered.',
    labels: ['service'],
  })
  const sockets = metrics.gauge({ name: 'gateway_sockets', help: 'WebSockets that are open through here.' })
  return {
    limited: (fact) => limited.inc(fact),
    connectionRefused: () => connections.inc(),
    callerRefused: (fact) => refused.inc(fact),
    upstreamFailed: ({ service, requestId, err }) => {
      failed.inc({ service })
      log.warn({ event: 'upstream.failed', service, requestId, err })
    },
    retried: (fact) => retries.inc(fact),
    balancerEvents: (service) => ({
      ejected: ({ address, forMs }) => {
        ejections.inc({ service })
        log.warn({ event: 'upstream.ejected', service, address, forMs })
      },
      readmitted: ({ address }) => log.info({ event: 'upstream.readmitted', service, address }),
      opened: ({ forMs }) => {
        openings.inc({ service })
        log.warn({ event: 'upstream.breaker_opened', service, forMs })
      },
      closed: () => log.info({ event: 'upstream.breaker_closed', service }),
    }),
    watchUpstream: (look) => watchUpstream(metrics, look),
    socketOpened: () => sockets.inc(),
    socketClosed: () => sockets.dec(),
  }
}

const breakerLevels: Readonly<Record<BreakerState, number>> = { closed: 0, 'half-open': 1, open: 2 }

function watchUpstream(metrics: Metrics, look: () => readonly UpstreamState[]): void {
  const watch = (name: string, help: string, levelOf: (state: UpstreamState) => number): void => {
    metrics.gauge({
      ...{ name, help, labels: ['service'] },
      collect: (gauge) => {
        for (const state of look()) gauge.set({ service: state.service }, levelOf(state))
      },
    })
  }
  watch(
    'gateway_upstream_pending',
    'Requests and WebSockets that the instances of a service have in hand.',
    ({ pending }) => pending,
  )
  watch('gateway_upstream_ejected', 'Instances out of rotation.', ({ ejected }) => ejected)
  watch(
    'gateway_breaker_state',
    'Whether requests for a service are refused: 0 none, 1 all but trials, 2 all.',
    ({ breaker }) => breakerLevels[breaker],
  )
}
