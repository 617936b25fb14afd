import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { openSession } from './session.ts'
import type { DatabaseTarget } from './target.ts'

export interface ListenerOptions {
  /** The server itself (`Database.directUrl`): a pooler does not carry LISTEN. */
  url: DatabaseTarget
  /** Channels belong to the database, not to a schema: put the service's name into them. */
  channels: readonly string[]
  /**
   * Called per notification, and once per channel with an empty payload after every (re)connection,
   * since what was sent meanwhile is lost. A hint to look, never the message itself; must not throw.
   */
  onNotify(channel: string, payload: string): void
  applicationName: string
  log: Logger
  clock?: Clock
}

export interface Listener extends AsyncDisposable {
  /** Resolves when listening (again after a loss). */
  listening(): Promise<void>
  close(): Promise<void>
}

/** Listens on `channels` by one connection of its own, which reconnects after a loss. */
export function listener(options: ListenerOptions): Listener {
  const { channels, onNotify } = options
  const session = openSession({
    ...options,
    async onConnect(client) {
      client.on('notification', ({ channel, payload }) => onNotify(channel, payload ?? ''))
      await client.query(channels.map((channel) => `listen ${client.escapeIdentifier(channel)}`).join(';'))
      for (const channel of channels) onNotify(channel, '')
    },
  })
  return {
    async listening() {
      await session.connected()
    },
    close: () => session.close(),
    [Symbol.asyncDispose]: () => session.close(),
  }
}

export interface NotifierOptions {
  url: DatabaseTarget
  applicationName: string
  log: Logger
  clock?: Clock
}

export interface Notifier extends AsyncDisposable {
  /**
   * Wakes the listeners of `channel`: at once, then at most once per 5 ms for all calls in between.
   * Returns at once; call it by `afterCommit(tx, () => notifier.notify(channel))`.
   */
  notify(channel: string): void
  /** Resolves when every wake-up asked for so far has been sent. */
  drained(): Promise<void>
  close(): Promise<void>
}

/** Decision 29: leading edge, then one per this many milliseconds. */
const NOTIFY_INTERVAL_MS = 5
const FLUSH_TIMEOUT_MS = 200

/**
 * Sends wake-ups on a connection of its own, outside of business transactions: a NOTIFY takes a lock on
 * the whole database at commit, and one in every business commit halves PostgreSQL's throughput.
 */
export function notifier(options: NotifierOptions): Notifier {
  const clock = options.clock ?? systemClock
  const due = new Set<string>()
  let sending: Promise<void> | undefined
  let closed = false
  const session = openSession({ ...options, onConnect: async () => undefined })

  const send = async (): Promise<void> => {
    while (due.size > 0 && !closed) {
      const channels = [...due]
      due.clear()
      try {
        const client = await session.connected()
        await client.query('select pg_notify(channel, $2) from unnest($1::text[]) channel', [channels, ''])
        await clock.sleep(NOTIFY_INTERVAL_MS)
      } catch (error) {
        if (closed) break
        // Unsent wake-ups go out on the next connection; listeners poll meanwhile.
        for (const channel of channels) due.add(channel)
        options.log.debug({ event: 'db.notify_failed', err: error, channels })
        await clock.sleep(NOTIFY_INTERVAL_MS)
      }
    }
    // In the same turn as the last look: what is asked for from now on begins a new run.
    sending = undefined
  }

  const drained = async (): Promise<void> => {
    while (sending !== undefined) await sending
  }
  return {
    notify(channel) {
      if (closed) return
      due.add(channel)
      // A turn later, so that one commit's many wake-ups are one.
      sending ??= Promise.resolve().then(send)
    },
    drained,
    async close() {
      // The last commit's wake-up should still go out, if there is a connection to send it on.
      const patience = new AbortController()
      const enough = clock.sleep(FLUSH_TIMEOUT_MS, patience.signal).catch(() => undefined)
      if (session.client !== null) await Promise.race([drained(), enough])
      patience.abort()
      closed = true
      await session.close()
      await drained()
    },
    [Symbol.asyncDispose]() {
      return this.close()
    },
  }
}
