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
  let closed = false
  const say = (channel: string): void => {
    if (closed) return
    mouth ??= notifier(session)
    mouth.notify(channel)
  }
  return {
    due: () => say(channels.due),
    moved: () => say(channels.moved),
    listen() {
      if (closed) return
      ear ??= listener({
        ...session,
        channels: Object.values(channels),
        onNotify: (channel) => (channel === channels.due ? onDue() : onMoved()),
      })
    },
    async close() {
      closed = true
      if (mouth !== undefined) await Promise.race([mouth.drained(), realClock.sleep(CLOSE_WAIT_MS)])
      await Promise.all([mouth?.close(), ear?.close()])
    },
  }
}
