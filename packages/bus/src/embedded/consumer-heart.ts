import { executorKey, liveExecutorKeys } from '@cloudphone/db/executor'
import { type QueryExecutorProvider, sql } from 'kysely'

/* One heartbeat row per process stands for all that it has in hand: a claim costs no renewal. Liveness is measured by
 * real time, not by app_now(), which a test may move. */

/**
 * How often a delivery may be found in the hands of a dead consumer before it is buried: something in it seems to kill.
 * Far above the number of tries, since every deploy that kills counts too.
 */
const MOST_ABANDONED = 20

/** Says that an executor is alive for another `ttlMs`. */
export async function beat(
  db: QueryExecutorProvider,
  { executor, ttlMs }: { executor: string; ttlMs: number },
): Promise<void> {
  await sql`
    insert into bus_consumer (executor, expires_at)
    values (${executor}, clock_timestamp() /* real time */ + ${ttlMs}::float8 * interval '1 millisecond')
    on conflict (executor) do update set expires_at = excluded.expires_at`.execute(db)
}

/**
 * Frees what dead consumers had in hand: their executor's lock is gone (killed: at once), or their heartbeat is too old
 * (frozen, cut off). Returns the queues that have something to deliver again.
 *
 * No index knows who has what in hand, so a look at the deliveries reads all of them. `dead` looks only while a consumer
 * that is dead has its row, and that goes when a look has found nothing of it. `all` looks in any case, for what a killed
 * process's last statement may have claimed when its row was gone.
 */
export async function freeAbandoned(
  db: QueryExecutorProvider,
  whose: 'dead' | 'all',
): Promise<readonly string[]> {
  const { rows } = await sql<{ dead: number; queues: string[] | null }>`
    with keys as materialized (select key from ${liveExecutorKeys()} as all_keys),
    live as materialized (
      select executor from bus_consumer
      where expires_at > clock_timestamp() /* real time */
        and ${executorKey(sql<string>`executor`)} in (select key from keys)
    ),
    dead as materialized (select executor from bus_consumer where executor not in (select executor from live)),
    freed as (
      update bus_delivery set claimed_by = null, abandoned = abandoned + 1
      where (${whose} = 'all' or exists (select from dead))
        and claimed_by is not null and claimed_by not in (select executor from live)
      returning queue, claimed_by
    )
    select (select count(*) from dead) as dead, (select array_agg(distinct queue) from freed) as queues`.execute(
    db,
  )
  const { dead = 0, queues = null } = rows[0] ?? {}
  if (dead > 0 && queues === null) await forgetDead(db)
  return queues ?? []
}

/** Removes consumers that are dead and have nothing in hand. */
async function forgetDead(db: QueryExecutorProvider): Promise<void> {
  await sql`
    with keys as materialized (select key from ${liveExecutorKeys()} as all_keys)
    delete from bus_consumer
    where (expires_at <= clock_timestamp() /* real time */
        or ${executorKey(sql<string>`executor`)} not in (select key from keys))
      and not exists (select from bus_delivery where claimed_by = executor)`.execute(db)
}

/**
 * Buries deliveries whose consumers keep dying. Also from informational queues: one of them may be innocent, and a dead
 * letter can be replayed. Returns how many were.
 */
export async function buryKillers(db: QueryExecutorProvider): Promise<number> {
  const { numAffectedRows = 0n } = await sql`
    with dead as (
      delete from bus_delivery where abandoned >= ${MOST_ABANDONED} and claimed_by is null returning *
    )
    insert into bus_dead_letter
      (queue, event_id, event_type, aggregate, envelope, error_message, attempts, first_failed_at)
    select queue, event_id, event_type, aggregate, envelope,
      'its consumer died ' || abandoned || ' times with it in hand', failures + 1, coalesce(first_failed_at, created_at)
    from dead
    on conflict (queue, event_id) do update
    set error_message = excluded.error_message, died_at = excluded.died_at`.execute(db)
  return Number(numAffectedRows)
}

/** Says goodbye: what the executor still has in hand is free. */
export async function leave(db: QueryExecutorProvider, executor: string): Promise<void> {
  await sql`
    with gone as (delete from bus_consumer where executor = ${executor})
    update bus_delivery set claimed_by = null where claimed_by = ${executor}`.execute(db)
}
