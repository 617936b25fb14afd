-- Which queue hears which event. Routing reads this table and not the publisher's own release, so that during an
-- upgrade an older publisher reaches the queues of a newer consumer, as with the bindings of a broker.
create table bus_subscription (
  event_type text not null,
  queue text not null,
  primary key (event_type, queue)
);

-- One event in one queue, from its publication until its consumer is done with it.
create table bus_delivery (
  queue text not null,
  event_id uuid not null,
  position bigint generated always as identity,
  event_type text not null,
  -- Deliveries of one aggregate in one queue go one after the other.
  aggregate text not null,
  envelope json not null,
  -- Failed tries.
  failures integer not null default 0,
  -- How often its consumer died or froze with it in hand. Not a failure: a deploy must not use up the tries.
  abandoned integer not null default 0,
  due_at timestamptz not null default app_now(),
  -- The executor of the consumer that has it in hand.
  claimed_by text,
  last_error text,
  first_failed_at timestamptz,
  created_at timestamptz not null default now(),
  primary key (queue, event_id)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

create index bus_delivery_ready on bus_delivery (queue, position) where claimed_by is null;
create index bus_delivery_claimed on bus_delivery (claimed_by) where claimed_by is not null;
create index bus_delivery_aggregate on bus_delivery (queue, aggregate, position);

-- Executors that consume. One is alive while its advisory lock is held and its heartbeat has not expired.
create table bus_consumer (
  executor text primary key,
  expires_at timestamptz not null
) with (fillfactor = 50);

-- A UUIDv7 (RFC 9562, section 5.7) by the server's clock: dead letters sort by the time at which they died. PostgreSQL
-- has a function for it from 18 on; we live with 15.
create function dead_letter_id() returns uuid language sql volatile as $$
  select encode(
    set_byte(set_byte(
      overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send(floor(extract(epoch from clock_timestamp() /* audit */) * 1000)::bigint) from 3) from 1 for 6),
      6, 112 | (get_byte(uuid_send(gen_random_uuid()), 6) & 15)),
      8, 128 | (get_byte(uuid_send(gen_random_uuid()), 8) & 63)),
    'hex')::uuid
$$;

create table bus_dead_letter (
  id uuid primary key default dead_letter_id(),
  queue text not null,
  event_id uuid not null,
  event_type text not null,
  aggregate text not null,
  envelope json not null,
  error_message text not null,
  attempts integer not null,
  first_failed_at timestamptz not null,
  died_at timestamptz not null default app_now(),
  unique (queue, event_id)
);
create index bus_dead_letter_queue on bus_dead_letter (queue, id);

-- Claims up to `most` deliveries of a queue that are due and not behind an earlier one of their aggregate that waits for
-- its retry or is in another consumer's hands. The lock makes claims of one queue follow each other, each with a fresh
-- snapshot: two at once could take n and n+1 of one aggregate apart.
create function claim_deliveries(of_queue text, executor text, most integer)
returns table (event_id uuid, aggregate text, envelope json, failures integer) language plpgsql as $$
#variable_conflict use_column
begin
  perform pg_advisory_xact_lock(hashtextextended('cloudphone.bus.claim.' || of_queue, 0));
  return query
    with candidate as (
      select d.event_id, d.position from bus_delivery d
      where d.queue = of_queue and d.claimed_by is null and d.due_at <= app_now()
        and not exists (
          select from bus_delivery earlier
          where earlier.queue = d.queue and earlier.aggregate = d.aggregate and earlier.position < d.position
            and (earlier.due_at > app_now() or earlier.claimed_by <> claim_deliveries.executor)
        )
      order by d.position limit most
      for update skip locked
    ), claimed as (
      update bus_delivery d set claimed_by = claim_deliveries.executor from candidate c
      where d.queue = of_queue and d.event_id = c.event_id
      returning d.position, d.event_id, d.aggregate, d.envelope, d.failures
    )
    select c.event_id, c.aggregate, c.envelope, c.failures from claimed c order by c.position;
end $$;
