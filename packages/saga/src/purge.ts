import { type QueryExecutorProvider, sql } from 'kysely'

export interface Purged {
  readonly sagas: number
  readonly logEntries: number
}

const BATCH = 1_000

/**
 * Deletes sagas that ended 30 days ago and log entries of 90 days ago, at most 1,000 of each at a time: a loop calls it
 * until both are 0. Two callers at once do no harm.
 */
export async function purge(db: QueryExecutorProvider): Promise<Purged> {
  const sagas = await sql`
    delete from saga_state where saga_id in (
      select saga_id from saga_state
      where status in ('COMPLETED', 'COMPENSATED') and ended_at < app_now() - interval '30 days'
      limit ${BATCH} for update skip locked)`.execute(db)
  const entries = await sql`
    delete from saga_step_log where (saga_id, id) in (
      select saga_id, id from saga_step_log where ended_at < app_now() - interval '90 days'
      limit ${BATCH} for update skip locked)`.execute(db)
  return {
    sagas: Number(sagas.numAffectedRows ?? 0),
    logEntries: Number(entries.numAffectedRows ?? 0),
  }
}
