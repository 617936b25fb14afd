import { type QueryExecutorProvider, sql } from 'kysely'
import type { DeadLetter, QueueStatistics } from '../bus.ts'

const columns = sql`
  id, queue, event_id as "eventId", event_type as "eventType", envelope, error_message as error, attempts,
  first_failed_at as "firstFailedAt", died_at as "diedAt"`

const DEFAULT_LIMIT = 100

/** Dead letters in the order in which they died, from after the given id on. */
export async function listDeadLetters(
  db: QueryExecutorProvider,
  { queue, limit = DEFAULT_LIMIT, after }: { queue?: string; limit?: number; after?: string },
): Promise<readonly DeadLetter[]> {
  const { rows } = await sql<DeadLetter>`
    select ${columns} from bus_dead_letter
    where ${queue === undefined ? sql`true` : sql`queue = ${queue}`}
      and ${after === undefined ? sql`true` : sql`id > ${after}::uuid`}
    order by id limit ${limit}`.execute(db)
  return rows
}

export async function getDeadLetter(db: QueryExecutorProvider, id: string): Promise<DeadLetter | undefined> {
  const { rows } = await sql<DeadLetter>`
    select ${columns} from bus_dead_letter where id = ${id}::uuid`.execute(db)
  return rows[0]
}

/** Puts dead letters back into their queues with all tries before them; returns the queue of each. */
export async function replayDeadLetters(
  db: QueryExecutorProvider,
  filter: { id?: string; queue?: string },
): Promise<readonly string[]> {
  const { rows } = await sql<{ queue: string }>`
    with letter as (
      delete from bus_dead_letter
      where ${filter.id === undefined ? sql`true` : sql`id = ${filter.id}::uuid`}
        and ${filter.queue === undefined ? sql`true` : sql`queue = ${filter.queue}`}
      returning *
    ), replayed as (
      insert into bus_delivery (queue, event_id, event_type, aggregate, envelope)
      select queue, event_id, event_type, aggregate, envelope from letter order by id
      on conflict (queue, event_id) do nothing
    )
    select queue from letter`.execute(db)
  return rows.map(({ queue }) => queue)
}

/** Forgets dead letters older than the inboxes' memory: replayed after that, an event could be applied twice. */
export async function purgeDeadLetters(db: QueryExecutorProvider): Promise<number> {
  const { numAffectedRows = 0n } = await sql`
    delete from bus_dead_letter where died_at < app_now() - interval '30 days'`.execute(db)
  return Number(numAffectedRows)
}

/** What each of the queues holds. */
export async function queueStatistics(
  db: QueryExecutorProvider,
  queues: readonly string[],
): Promise<readonly QueueStatistics[]> {
  const { rows } = await sql<QueueStatistics>`
    select queue, coalesce(ready, 0) as ready, coalesce(delayed, 0) as delayed,
      coalesce(in_flight, 0) as "inFlight", coalesce(dead, 0) as dead
    from unnest(${queues}::text[]) with ordinality as known (queue, ordinal)
    left join (
      select queue, count(*) filter (where claimed_by is null and due_at <= app_now()) as ready,
        count(*) filter (where claimed_by is null and due_at > app_now()) as delayed,
        count(*) filter (where claimed_by is not null) as in_flight
      from bus_delivery group by queue) delivery using (queue)
    left join (select queue, count(*) as dead from bus_dead_letter group by queue) letter using (queue)
    order by ordinal`.execute(db)
  return rows
}
