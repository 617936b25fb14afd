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

export interface InboxEntries {
  /** The queue. */
  readonly consumer: string
  readonly events: readonly Omit<InboxEntry, 'consumer'>[]
  /** The transaction fails rather than wait longer than that for a lock, here and in all that follows in it. */
  readonly lockTimeoutMs: number
}

/** As `enterInbox` for many at once, in one statement. Returns the ids of those that have not been applied before. */
export async function enterInboxes(
  tx: AnyTx,
  { consumer, events, lockTimeoutMs }: InboxEntries,
): Promise<Set<string>> {
  // In the order of their keys: two consumers that were given the same events wait for each other in one direction.
  const sorted = events.toSorted((one, other) => (one.eventId < other.eventId ? -1 : 1))
  const { rows } = await sql<{ id: string }>`
    with bounded as materialized (select set_config('lock_timeout', ${`${lockTimeoutMs}ms`}, true))
    insert into inbox (consumer, event_time, event_id)
    select ${consumer}, event.time, event.id
    from bounded, unnest(
      ${sorted.map(({ eventTime }) => eventTime)}::timestamptz[],
      ${`{${sorted.map(({ eventId }) => eventId).join()}}`}::uuid[]
    ) as event (time, id)
    on conflict do nothing
    returning event_id as id`.execute(tx)
  return new Set(rows.map(({ id }) => id))
}

/** Takes back what was entered and then not applied. */
export async function leaveInbox(
  tx: AnyTx,
  { consumer, events }: Pick<InboxEntries, 'consumer' | 'events'>,
): Promise<void> {
  await sql`
    delete from inbox using unnest(
      ${events.map(({ eventTime }) => eventTime)}::timestamptz[],
      ${events.map(({ eventId }) => eventId)}::uuid[]
    ) as event (time, id)
    where consumer = ${consumer} and event_time = event.time and event_id = event.id`.execute(tx)
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
