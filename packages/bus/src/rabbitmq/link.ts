import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { type Channel, Connection } from 'rabbitmq-client'

/** One connection to the broker, made again by itself when it is lost. */
export interface Link {
  /**
   * Opens a channel; waits for the broker.
   * @throws Error that says why there is no connection, after `connectTimeoutMs`.
   */
  acquire(): Promise<Channel>
  /** Why the broker takes nothing from this connection at present; undefined while it does. */
  readonly blocked: string | undefined
  /** Called when the broker says so, with its reason. */
  onBlocked(listener: (reason: string) => void): void
  close(): Promise<void>
}

export interface LinkOptions {
  readonly url: string
  readonly name: string
  readonly log: Logger
  readonly clock: Clock
  /** A broker that is silent for twice as long is gone. */
  readonly heartbeatSeconds: number
  readonly connectTimeoutMs: number
}

const CLOSE_WITHIN_MS = 5_000

/** Where decision 21 puts everything, unless the URL names another virtual host. */
const VIRTUAL_HOST = '/cloudphone'

export function openLink({ url, name, log, clock, heartbeatSeconds, connectTimeoutMs }: LinkOptions): Link {
  const target = new URL(url)
  if (target.pathname === '' || target.pathname === '/') target.pathname = encodeURIComponent(VIRTUAL_HOST)
  const connection = new Connection({
    url: target.href,
    connectionName: `cloudphone ${name}`,
    heartbeat: heartbeatSeconds,
    acquireTimeout: connectTimeoutMs,
    retryLow: 100,
    retryHigh: 2_000,
    noDelay: true,
  })
  let lastError: unknown
  let blocked: string | undefined
  const listeners: ((reason: string) => void)[] = []
  connection.on('error', (error: unknown) => {
    lastError = error
    log.warn({ event: 'bus.connection_failed', connection: name, err: error })
  })
  connection.on('connection', () => {
    // A new connection starts unblocked; the broker says so again if it must.
    blocked = undefined
    lastError = undefined
    log.info({ event: 'bus.connected', connection: name })
  })
  connection.on('connection.blocked', (reason) => {
    blocked = reason
    log.error({ event: 'bus.blocked', connection: name, reason })
    for (const listener of listeners) listener(reason)
  })
  connection.on('connection.unblocked', () => {
    blocked = undefined
    log.info({ event: 'bus.unblocked', connection: name })
  })
  return {
    async acquire() {
      try {
        return await connection.acquire({ emitErrorsFromChannel: true })
      } catch (error) {
        const cause = lastError ?? error
        const reason = cause instanceof Error ? cause.message : String(cause)
        throw new Error(
          `RabbitMQ at ${target.host}, virtual host ${decodeURIComponent(target.pathname.slice(1))}: ${reason}`,
          {
            cause,
          },
        )
      }
    },
    get blocked() {
      return blocked
    },
    onBlocked(listener) {
      listeners.push(listener)
    },
    async close() {
      const timer = new AbortController()
      const late = clock.sleep(CLOSE_WITHIN_MS, timer.signal).then(
        () => connection.unsafeDestroy(),
        // Aborted: the connection was closed in time.
        () => undefined,
      )
      await Promise.race([connection.close(), late])
      timer.abort()
    },
  }
}
