import type { Database } from '@cloudphone/db/database'
import { type Listener, listener, type Notifier, notifier } from '@cloudphone/db/listen'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'

/** Hints between the processes of one service: something is due, something has moved. Loss is repaired by polls. */
export interface Hints {
  due(): void
  moved(): void
  /** Hears the hints of others (and its own) from now on. */
  listen(): void
  close(): Promise<void>
}

/** What is still unsent when the database is away is not worth a longer wait. */
const CLOSE_WAIT_MS = 500
/** Every checkpoint is a move; whoever waits for one looks no more often than this. */
const MOVED_INTERVAL_MS = 50

export function openHints<Schema>({
  database,
  log,
  realClock,
  onDue,
  onMoved,
}: {
  database: Database<Schema>
  log: Logger
  realClock: Clock
  onDue: () => void
  onMoved: () => void
}): Hints {
  const channels = { due: `saga_due.${database.schema}`, moved: `saga_moved.${database.schema}` }
  const session = { url: database.directUrl, applicationName: `sagas of ${database.schema}`, log }
  let mouth: Notifier | undefined
  let ear: Listener | undefined
  const closed = new AbortController()
  let movedAgain = false
  let saying = false
  const say = (channel: string): void => {
    if (closed.signal.aborted) return
    mouth ??= notifier(session)
    mouth.notify(channel)
  }
  const sayMoved = async (): Promise<void> => {
    saying = true
    while (movedAgain && !closed.signal.aborted) {
      movedAgain = false
      say(channels.moved)
      await realClock.sleep(MOVED_INTERVAL_MS, closed.signal).catch(() => undefined) // closed: nothing is said any more
    }
    saying = false
  }
  return {
    due: () => say(channels.due),
    moved() {
      movedAgain = true
      if (!saying) void sayMoved() // never rejects
    },
    listen() {
      if (closed.signal.aborted) return
      ear ??= listener({
        ...session,
        channels: Object.values(channels),
        onNotify: (channel) => (channel === channels.due ? onDue() : onMoved()),
      })
    },
    async close() {
      closed.abort(new Error('sagas are stopping'))
      if (mouth !== undefined) await Promise.race([mouth.drained(), realClock.sleep(CLOSE_WAIT_MS)])
      await Promise.all([mouth?.close(), ear?.close()])
    },
  }
}
