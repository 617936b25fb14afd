import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import pg from 'pg'
import { clientConfig, type DatabaseTarget } from './target.ts'

export interface SessionOptions {
  /** The server itself, never a pooler: what a session holds lives in its connection. */
  url: DatabaseTarget
  applicationName: string
  log: Logger
  clock?: Clock
  /**
   * Called on every new connection before it counts as up; throwing drops it and tries again.
   * `lost` aborts when this connection ends.
   */
  onConnect(client: pg.Client, lost: AbortSignal): Promise<void>
}

/** A connection of its own that comes back: after a loss it reconnects for ever, 50 ms to 5 s apart. */
export interface Session extends AsyncDisposable {
  /** The live connection, or null while there is none. */
  readonly client: pg.Client | null
  /** Resolves when connected (again); rejects once the session is closed. */
  connected(): Promise<pg.Client>
  close(): Promise<void>
}

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 5_000
// A peer that vanished without closing shows only when something is sent: the kernel's keep-alive
// gives up after ten minutes by default.
const PING_EVERY_MS = 15_000
const PING_TIMEOUT_MS = 5_000

/** Opens a session; returns at once, the connection is made in the background. */
export function openSession(options: SessionOptions): Session {
  const clock = options.clock ?? systemClock
  const closed = new AbortController()
  let client: pg.Client | null = null
  let waiting = Promise.withResolvers<pg.Client>()
  // Nobody may be waiting when the session closes.
  waiting.promise.catch(() => undefined)

  const serve = async (): Promise<void> => {
    let failures = 0
    while (!closed.signal.aborted) {
      const next = new pg.Client(clientConfig(options.url, options.applicationName))
      const lost = watch(next)
      try {
        await next.connect()
        await options.onConnect(next, lost)
        if (lost.aborted) throw lost.reason
        failures = 0
        client = next
        waiting.resolve(next)
        await stayConnected(next, AbortSignal.any([lost, closed.signal]), clock)
      } catch (error) {
        if (!closed.signal.aborted)
          options.log.warn({ event: 'db.session_lost', err: error, session: options.applicationName })
      }
      if (client !== null) {
        client = null
        waiting = Promise.withResolvers()
        waiting.promise.catch(() => undefined)
      }
      await end(next)
      const backoffMs = Math.min(FIRST_BACKOFF_MS * 2 ** failures, MAX_BACKOFF_MS)
      failures += 1
      await clock.sleep(backoffMs, closed.signal).catch(() => undefined)
    }
    waiting.reject(new Error(`Session ${options.applicationName} is closed`))
  }
  const serving = serve()

  return {
    get client() {
      return client
    },
    connected: () => (client === null ? waiting.promise : Promise.resolve(client)),
    async close() {
      closed.abort(new Error('closed'))
      await serving
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}

/** Aborts when the connection ends, for whatever reason. */
function watch(client: pg.Client): AbortSignal {
  const lost = new AbortController()
  client.on('error', (error) => lost.abort(error))
  client.on('end', () => lost.abort(new Error('Connection ended')))
  return lost.signal
}

/** Returns (or throws what ended it) when the connection is lost, silent for too long, or no longer wanted. */
async function stayConnected(client: pg.Client, over: AbortSignal, clock: Clock): Promise<void> {
  for (;;) {
    await clock.sleep(PING_EVERY_MS, over)
    const answered = new AbortController()
    const silence = clock.sleep(PING_TIMEOUT_MS, AbortSignal.any([over, answered.signal])).then(() => {
      throw new Error(`No answer within ${PING_TIMEOUT_MS} ms`)
    })
    try {
      await Promise.race([client.query('select 1'), silence])
    } finally {
      answered.abort()
      // It has lost the race, or has been reported by it.
      silence.catch(() => undefined)
    }
  }
}

async function end(client: pg.Client): Promise<void> {
  // A polite goodbye needs a live peer; a dead one would keep it waiting.
  const goodbye = client.end().catch(() => undefined)
  const timer = new AbortController()
  await Promise.race([goodbye, systemClock.sleep(500, timer.signal).catch(() => undefined)])
  timer.abort()
}
