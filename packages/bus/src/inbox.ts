import type { AnyTx } from '@cloudphone/db/database'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { type QueryExecutorProvider, sql } from 'kysely'

/** The folder with the table of applied events, for `migrate` in each service's schema. Needs `app_now()`. */
export const INBOX_MIGRATIONS = new URL('../migrations/inbox/', import.meta.url)

export interface InboxEntry {
  /** The queue. */
  readonly consumer: string
  readonly eventId: string
  /** The instant inside the event's id. */
  readonly eventTime: Date
}

/**
 * Notes in the effect's transaction that an event is being applied. False when it has been before. While another
 * transaction applies the same event this waits for its end.
 */
export async function enterInbox(tx: AnyTx, { consumer, eventId, eventTime }: InboxEntry): Promise<boolean> {
  const { numAffectedRows = 0n } = await sql`
    insert into inbox (consumer, event_time, event_id) values (${consumer}, ${eventTime}, ${eventId})
    on conflict do nothing`.execute(tx)
  return numAffectedRows === 1n
}

const MAINTAIN_EVERY_MS = 3_600_000

/** Keeps partitions made ahead of time and drops those of more than 35 days ago. Harmless when many do it. */
export async function keepInbox({
  database,
  log,
  clock = systemClock,
}: {
  database: { readonly kysely: QueryExecutorProvider; readonly schema: string }
  log: Logger
  clock?: Clock
}): Promise<{ close(): Promise<void> }> {
  const closed = new AbortController()
  const maintain = async (): Promise<void> => {
    await sql`select ensure_inbox_partitions(), purge_inbox()`.execute(database.kysely)
  }
  await maintain()
  const keep = async (): Promise<void> => {
    while (!closed.signal.aborted) {
      await clock.sleep(MAINTAIN_EVERY_MS, closed.signal).catch(() => undefined)
      if (closed.signal.aborted) return
      await maintain().catch((error: unknown) => {
        log.warn({ event: 'inbox.maintenance_failed', schema: database.schema, err: error })
      })
    }
  }
  const keeping = keep()
  return {
    async close() {
      closed.abort(new Error('the inbox closes'))
      await keeping
    },
  }
}
