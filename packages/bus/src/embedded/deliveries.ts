import { type QueryExecutorProvider, sql } from 'kysely'

/** A delivery that one of our consumers has in hand. */
export interface Claimed {
  /** What it is settled by. */
  readonly position: number
  readonly eventId: string
  /** Deliveries of one aggregate run one after the other. */
  readonly aggregate: string
  /** JSON. */
  readonly envelope: string
  /** Failed tries so far. */
  readonly failures: number
  /** How often a consumer died with it in hand. */
  readonly abandoned: number
  /** The executor under which it was claimed: what is settled later must still be under it. */
  readonly executor: string
}

/**
 * Takes what is done out of the queue and claims up to `most` others, in order; see `settle_and_claim` in the migration
 * for what may be claimed. What was taken from the executor meanwhile is left alone.
 */
export async function settleAndClaim(
  db: QueryExecutorProvider,
  { queue, executor, done, most }: { queue: string; executor: string; done: readonly number[]; most: number },
): Promise<readonly Claimed[]> {
  const { rows } = await sql<Omit<Claimed, 'executor'>>`
    select position, event_id as "eventId", aggregate, envelope, failures, abandoned
    from settle_and_claim(${queue}, ${executor}, ${done}::bigint[], ${most}::integer)`.execute(db)
  return rows.map((row) => ({ ...row, executor }))
}

/**
 * Those of the queues that have something unclaimed and due: one look at all of them. A claim from each queue that is
 * empty, once a second, was 22 of the 54 transactions a second of a platform that does nothing (measured).
 */
export async function queuesWithDue(
  db: QueryExecutorProvider,
  queues: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await sql<{ queue: string }>`
    select consumed.queue from unnest(${queues}::text[]) as consumed (queue)
    where exists (
      select from bus_delivery d
      where d.queue = consumed.queue and d.claimed_by is null and d.due_at <= app_now())`.execute(db)
  return rows.map(({ queue }) => queue)
}

/** Which delivery, under which claim: one that was taken from its consumer meanwhile is left alone. */
export interface Settled {
  readonly queue: string
  readonly executor: string
  readonly positions: readonly number[]
}

/** Puts deliveries back untouched. */
export async function releaseDeliveries(
  db: QueryExecutorProvider,
  { queue, executor, positions }: Settled,
): Promise<void> {
  await sql`
    update bus_delivery set claimed_by = null
    where queue = ${queue} and position = any(${positions}::bigint[]) and claimed_by = ${executor}`.execute(
    db,
  )
}

export interface Failure {
  readonly queue: string
  readonly executor: string
  readonly position: number
  readonly error: string
}

/** Counts a failed try and puts the delivery back, to be tried after `delayMs` by the database's clock. */
export async function delayDelivery(
  db: QueryExecutorProvider,
  { queue, executor, position, error, delayMs }: Failure & { delayMs: number },
): Promise<void> {
  await sql`
    update bus_delivery
    set claimed_by = null, failures = failures + 1, last_error = ${error},
      first_failed_at = coalesce(first_failed_at, app_now()),
      due_at = app_now() + ${delayMs}::float8 * interval '1 millisecond'
    where queue = ${queue} and position = ${position} and claimed_by = ${executor}`.execute(db)
}

/** Moves a delivery to the dead letters, in one statement. An event that died in this queue before keeps its entry's id. */
export async function buryDelivery(
  db: QueryExecutorProvider,
  { queue, executor, position, error }: Failure,
): Promise<void> {
  await sql`
    with dead as (
      delete from bus_delivery
      where queue = ${queue} and position = ${position} and claimed_by = ${executor}
      returning *
    )
    insert into bus_dead_letter
      (queue, event_id, event_type, aggregate, envelope, error_message, attempts, first_failed_at)
    select queue, event_id, event_type, aggregate, envelope, ${error}, failures + 1,
      coalesce(first_failed_at, app_now())
    from dead
    on conflict (queue, event_id) do update
    set error_message = excluded.error_message, attempts = excluded.attempts, died_at = excluded.died_at`.execute(
    db,
  )
}

/** Whether a delivery of these queues is in hand, or could be: due, and not behind a delayed one of its aggregate. */
export async function hasWork(db: QueryExecutorProvider, queues: readonly string[]): Promise<boolean> {
  const { rows } = await sql<{ busy: boolean }>`
    select exists (
      select from bus_delivery d
      where d.queue = any(${queues}::text[]) and (d.claimed_by is not null or d.due_at <= app_now())
        and not exists (
          select from bus_delivery earlier
          where earlier.queue = d.queue and earlier.aggregate = d.aggregate and earlier.position < d.position
            and earlier.due_at > app_now())) as busy`.execute(db)
  return rows[0]?.busy ?? false
}
