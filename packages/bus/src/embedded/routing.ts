import type { EventEnvelope } from '@cloudphone/contracts/event'
import type { Subscription } from '@cloudphone/contracts/topology'
import { type QueryExecutorProvider, sql } from 'kysely'

/** Makes the subscriptions known. Those of other releases stay: their consumers may still run. */
export async function declareSubscriptions(
  db: QueryExecutorProvider,
  subscriptions: readonly Subscription[],
): Promise<void> {
  const pairs = subscriptions.flatMap(({ queue, events }) => events.map(({ name }) => ({ queue, name })))
  await sql`
    insert into bus_subscription (event_type, queue)
    select event_type, queue
    from unnest(${pairs.map(({ name }) => name)}::text[], ${pairs.map(({ queue }) => queue)}::text[])
      as pair (event_type, queue)
    order by event_type, queue
    on conflict do nothing`.execute(db)
}

export interface Routed {
  /** Queues that took something new. */
  readonly queues: readonly string[]
  /** Those of the given event types that some queue hears. */
  readonly heard: ReadonlySet<string>
}

/**
 * Puts events into the queues that hear them, in order and in one statement; an event that a queue holds already is left
 * alone. Their JSON goes as lines of one text, which holds no line break of its own: as an array, every quotation mark in
 * it was escaped here and unescaped there, which took a sixth of our time (measured).
 */
export async function insertDeliveries(
  db: QueryExecutorProvider,
  envelopes: readonly EventEnvelope[],
): Promise<Routed> {
  const { rows } = await sql<{ queues: string[] | null; heard: string[] | null }>`
    with event as (
      select * from rows from (
        unnest(${`{${envelopes.map(({ id }) => id).join()}}`}::uuid[]),
        unnest(${envelopes.map(({ type }) => type)}::text[]),
        unnest(${envelopes.map(({ aggregatetype, subject }) => `${aggregatetype}:${subject}`)}::text[]),
        string_to_table(${envelopes.map((envelope) => JSON.stringify(envelope)).join('\n')}::text, ${'\n'})
      ) with ordinality as event (id, type, aggregate, envelope, ordinal)
    ), inserted as (
      insert into bus_delivery (queue, event_id, event_type, aggregate, envelope)
      select subscription.queue, event.id, event.type, event.aggregate, event.envelope::json
      from event join bus_subscription subscription on subscription.event_type = event.type
      order by event.ordinal
      on conflict (queue, event_id) do nothing
      returning queue
    )
    select (select array_agg(distinct queue) from inserted) as queues,
      (select array_agg(distinct event_type) from bus_subscription
        where event_type = any(${[...new Set(envelopes.map(({ type }) => type))]}::text[])) as heard`.execute(
    db,
  )
  return { queues: rows[0]?.queues ?? [], heard: new Set(rows[0]?.heard ?? []) }
}
