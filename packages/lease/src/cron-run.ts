import type { Database, Tx } from '@cloudphone/db/database'
import { sql } from 'kysely'

export interface TickOptions<Schema> {
  readonly database: Database<Schema>
  /** Names the job in `cron_run`. */
  readonly job: string
  /** Ticks are the multiples of this since 1970-01-01T00:00Z, by the database's `app_now()`. */
  readonly everyMs: number
  readonly work: (tx: Tx<Schema>, scheduledFor: Date) => Promise<void>
}

/** How long the memory of ticks is kept: longer than any clock is off. */
const KEPT_DAYS = 7

/**
 * Runs `work` for the latest tick that is due unless it has run, in one transaction with the mark that it ran: exactly
 * once for effects in the database, whatever leases say. Catch-up: after a pause only the latest tick runs, never the
 * missed ones before it. Returns whether it ran here. Throws what `work` throws; the tick then remains to be run.
 */
export async function runOncePerTick<Schema>({
  database,
  job,
  everyMs,
  work,
}: TickOptions<Schema>): Promise<boolean> {
  return await database.transaction(async (tx) => {
    const { rows } = await sql<{ scheduledFor: Date }>`
      insert into cron_run (job, scheduled_for)
      select ${job}, to_timestamp(
        floor(extract(epoch from app_now()) * 1000 / ${everyMs}::float8) * ${everyMs}::float8 / 1000)
      on conflict do nothing
      returning scheduled_for as "scheduledFor"`.execute(tx)
    const scheduledFor = rows[0]?.scheduledFor
    if (scheduledFor === undefined) return false
    await sql`
      delete from cron_run
      where job = ${job} and scheduled_for < ${scheduledFor}::timestamptz - ${KEPT_DAYS} * interval '1 day'`.execute(
      tx,
    )
    await work(tx, scheduledFor)
    return true
  })
}
