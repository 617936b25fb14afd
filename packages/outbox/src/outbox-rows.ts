import type { EventEnvelope } from '@cloudphone/contracts/event'
import { type QueryExecutorProvider, sql } from 'kysely'
import type { HeldLane } from './lanes.ts'
import type { OutboxStatistics } from './outbox.ts'

/** An unpublished row, as the relay works on it. */
export interface OutboxRow {
  readonly id: string
  readonly lane: number
  readonly aggregateType: string
  readonly aggregateId: string
  readonly aggregateVersion: number
  readonly eventType: string
  readonly payload: unknown
  readonly headers: { source: string; dataschema: string; traceparent?: string }
  readonly createdAt: Date
  readonly retryCount: number
}

/**
 * The first failed row of each aggregate, which there are few of. By itself: as a join of the table with itself, a plan
 * made when the statistics were those of an hour ago took 400 ms for 500 rows (measured), and a queue's always are.
 */
const failedFirst = sql`failed as materialized (
      select aggregate_type, aggregate_id, min(position) as position from event_outbox
      where status = 'failed' group by aggregate_type, aggregate_id)`
const failedBefore = sql`
        select from failed
        where failed.aggregate_type = waiting.aggregate_type and failed.aggregate_id = waiting.aggregate_id
          and failed.position < waiting.position`

/**
 * Unpublished rows of the lanes that may be sent now, in the order of writing. What is returned of one aggregate always
 * starts at its first unpublished row, or behind its last one among `besides`, which are left out: they are on their way
 * already. A row that has failed goes alone: those behind it wait until the bus has it.
 */
export async function unpublishedRows(
  db: QueryExecutorProvider,
  {
    lanes,
    limit,
    besides = [],
  }: { lanes: readonly HeldLane[]; limit: number; besides?: readonly Pick<OutboxRow, 'id'>[] },
): Promise<readonly OutboxRow[]> {
  const { rows } = await sql<OutboxRow>`
    with ${failedFirst}
    select id, lane, aggregate_type as "aggregateType", aggregate_id as "aggregateId",
      aggregate_version as "aggregateVersion", event_type as "eventType", payload, headers,
      created_at as "createdAt", retry_count as "retryCount"
    from event_outbox waiting
    where status <> 'published' and lane = any(${lanes.map(({ lane }) => lane)}::smallint[])
      and (next_retry_at is null or next_retry_at <= app_now())
      ${besides.length === 0 ? sql`` : sql`and id <> all(${`{${besides.map(({ id }) => id).join()}}`}::uuid[])`}
      and not exists (${failedBefore})
    order by position
    limit ${limit}`.execute(db)
  return rows
}

/** The CloudEvents envelope of a row: the same however often it is built. */
export function envelopeOf(row: OutboxRow): EventEnvelope {
  return {
    specversion: '1.0',
    id: row.id,
    source: row.headers.source,
    type: row.eventType,
    subject: row.aggregateId,
    time: row.createdAt.toISOString(),
    datacontenttype: 'application/json',
    dataschema: row.headers.dataschema,
    aggregatetype: row.aggregateType,
    aggregateversion: row.aggregateVersion,
    ...(row.headers.traceparent === undefined ? {} : { traceparent: row.headers.traceparent }),
    data: row.payload,
  }
}

export interface MarkOptions {
  readonly owner: string
  readonly lanes: readonly HeldLane[]
}

/**
 * Marks rows published whose lane is still held under the given epochs. Returns how many were; the others are the new
 * holder's to publish and mark.
 */
export async function markPublished(
  db: QueryExecutorProvider,
  ids: readonly string[],
  { owner, lanes }: MarkOptions,
): Promise<number> {
  const { numAffectedRows = 0n } = await sql`
    update event_outbox
    set status = 'published', published_at = app_now(), next_retry_at = null
    from outbox_lane held
    join unnest(${lanes.map(({ lane }) => lane)}::smallint[], ${lanes.map(({ epoch }) => epoch)}::bigint[])
      as mine (lane, epoch) on mine.lane = held.lane and mine.epoch = held.epoch
    where event_outbox.id = any(${`{${ids.join()}}`}::uuid[]) and event_outbox.lane = held.lane and held.owner = ${owner}
      and event_outbox.status <> 'published'`.execute(db)
  return Number(numAffectedRows)
}

/** Notes that rows could not be published: tried again after 1 s, doubling to 60 s, for ever. Fenced as above. */
export async function markFailed(
  db: QueryExecutorProvider,
  failures: readonly { id: string; error: string }[],
  { owner, lanes }: MarkOptions,
): Promise<void> {
  await sql`
    update event_outbox
    set status = 'failed', retry_count = retry_count + 1, error_message = failure.error,
      next_retry_at = app_now() + least(60, power(2, least(retry_count, 10))) * interval '1 second'
    from unnest(${failures.map(({ id }) => id)}::uuid[], ${failures.map(({ error }) => error)}::text[])
      as failure (id, error),
      outbox_lane held
      join unnest(${lanes.map(({ lane }) => lane)}::smallint[], ${lanes.map(({ epoch }) => epoch)}::bigint[])
        as mine (lane, epoch) on mine.lane = held.lane and mine.epoch = held.epoch
    where event_outbox.id = failure.id and event_outbox.lane = held.lane and held.owner = ${owner}
      and event_outbox.status <> 'published'`.execute(db)
}

/** Milliseconds until the next failed row is due; undefined when none waits. */
export async function nextRetryInMs(db: QueryExecutorProvider): Promise<number | undefined> {
  const { rows } = await sql<{ inMs: number | null }>`
    select (extract(epoch from min(next_retry_at) - app_now()) * 1000)::float8 as "inMs"
    from event_outbox where status = 'failed' and next_retry_at > app_now()`.execute(db)
  return rows[0]?.inMs ?? undefined
}

/** The highest position among rows that nobody has tried yet; undefined when there is none. */
export async function lastPending(db: QueryExecutorProvider): Promise<number | undefined> {
  const { rows } = await sql<{ position: number | null }>`
    select max(position) as position from event_outbox where status = 'pending'`.execute(db)
  return rows[0]?.position ?? undefined
}

/**
 * Whether a row up to that position still waits for its first try; rows behind a failed one of their aggregate do not
 * count, since they wait for its retry.
 */
export async function hasPendingUpTo(db: QueryExecutorProvider, position: number): Promise<boolean> {
  const { rows } = await sql<{ waits: boolean }>`
    with ${failedFirst}
    select exists (
      select from event_outbox waiting
      where status = 'pending' and position <= ${position}
        and not exists (${failedBefore})) as waits`.execute(db)
  return rows[0]?.waits ?? false
}

/** Counts and lag of the whole outbox. */
export async function outboxStatistics(db: QueryExecutorProvider): Promise<OutboxStatistics> {
  const { rows } = await sql<OutboxStatistics>`
    select
      count(*) filter (where status = 'pending') as pending,
      count(*) filter (where status = 'failed') as failed,
      (select count(*) from event_outbox where status = 'published') as published,
      coalesce(extract(epoch from app_now() - min(created_at)), 0)::float8 as "lagSeconds"
    from event_outbox where status <> 'published'`.execute(db)
  const [statistics] = rows
  if (statistics === undefined) throw new Error('Outbox statistics: the database answered no row')
  return { ...statistics, lagSeconds: Math.max(0, statistics.lagSeconds) }
}

/** Deletes what is old enough (7 days) or beyond 1,000,000 rows, in batches. Returns how many rows went. */
export async function cleanUpOutbox(db: QueryExecutorProvider): Promise<number> {
  let total = 0
  for (;;) {
    const { rows } = await sql<{ gone: number }>`select cleanup_old_outbox_events() as gone`.execute(db)
    const gone = rows[0]?.gone ?? 0
    if (gone === 0) return total
    total += gone
  }
}

/**
 * Aggregates of which an event left before an older one of them: invariant 6 says that there are none. `checked` is the
 * number of unpublished rows, since only those can have been overtaken.
 */
export async function overtakenEvents(
  db: QueryExecutorProvider,
  limit: number,
): Promise<{ checked: number; overtaken: readonly { aggregate: string; eventId: string }[] }> {
  const counted = await sql<{ checked: number }>`
    select count(*)::int as checked from event_outbox where status <> 'published'`.execute(db)
  const { rows } = await sql<{ aggregate: string; eventId: string }>`
    select waiting.aggregate_type || ' ' || waiting.aggregate_id as aggregate, waiting.id as "eventId"
    from event_outbox waiting
    where waiting.status <> 'published' and exists (
      select from event_outbox later
      where later.aggregate_type = waiting.aggregate_type and later.aggregate_id = waiting.aggregate_id
        and later.aggregate_version > waiting.aggregate_version and later.status = 'published')
    limit ${limit}`.execute(db)
  return { checked: counted.rows[0]?.checked ?? 0, overtaken: rows }
}
