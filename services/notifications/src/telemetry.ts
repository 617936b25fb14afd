import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'

/** What this service reports, each fact once: a log line and a counter. */
export interface Telemetry {
  stored(type: string): void
  pushed(count: number): void
  connected(userId: string): void
  disconnected(userId: string): void
}

export function openTelemetry(log: Logger, metrics: Metrics): Telemetry {
  const stored = metrics.counter({
    name: 'notifications_stored_total',
    help: 'Notices stored.',
    labels: ['type'],
  })
  const pushed = metrics.counter({
    name: 'notifications_pushed_total',
    help: 'Notices brought to an open socket.',
  })
  const open = metrics.gauge({ name: 'notifications_open_sockets', help: 'Sockets open on this instance.' })
  return {
    stored: (type) => {
      stored.inc({ type })
      log.info({ event: 'notification.stored', type })
    },
    pushed: (count) => pushed.inc(count),
    connected: (userId) => {
      open.inc()
      log.debug({ event: 'socket.connected', userId })
    },
    disconnected: (userId) => {
      open.dec()
      log.debug({ event: 'socket.disconnected', userId })
    },
  }
}
