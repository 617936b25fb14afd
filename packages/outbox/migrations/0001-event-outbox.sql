-- Events as the business transaction wrote them; the relay hands them to the bus and marks them published.
-- payload and headers are json, not jsonb: kept as written, cheaper to insert, and \u0000 inside text is no error.
create table event_outbox (
  id uuid primary key,
  -- The order of writing. For one aggregate it is the order of its versions, since the writer of n+1 waits for the row
  -- lock of the writer of n. Never a watermark: a transaction that commits late has a low position.
  position bigint generated always as identity,
  aggregate_type text not null,
  aggregate_id text not null,
  aggregate_version integer not null check (aggregate_version > 0),
  event_type text not null,
  payload json not null,
  headers json not null default '{}',
  status text not null default 'pending' check (status in ('pending', 'published', 'failed')),
  retry_count integer not null default 0 check (retry_count >= 0),
  error_message text,
  next_retry_at timestamptz,
  created_at timestamptz not null default app_now(),
  published_at timestamptz,
  -- Computed by the server, so that two releases cannot disagree about it.
  lane smallint not null generated always as
    ((hashtextextended(aggregate_type || ':' || aggregate_id, 0) & 15)::smallint) stored
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

create unique index idx_outbox_aggregate on event_outbox (aggregate_type, aggregate_id, aggregate_version);
create index idx_outbox_status_created on event_outbox (status, created_at);
create index idx_outbox_event_type on event_outbox (event_type, created_at);
create index idx_outbox_failed_retryable on event_outbox (aggregate_type, aggregate_id, next_retry_at)
  where status = 'failed';
create index idx_outbox_unpublished on event_outbox (position) where status <> 'published';

-- A relay is alive while its executor's lock is held and its heartbeat has not expired.
create table outbox_relay (
  owner text primary key,
  expires_at timestamptz not null
) with (fillfactor = 50);

-- epoch rises with every change of owner: marks made under an older one are refused.
create table outbox_lane (
  lane smallint primary key check (lane between 0 and 15),
  owner text,
  epoch bigint not null default 0
) with (fillfactor = 50);
insert into outbox_lane (lane) select generate_series(0, 15);

-- Deletes published rows older than `retention`, then the oldest published ones beyond `max_rows`; at most
-- `batch_size` of either per call. Returns how many went: call again while it is above zero.
create function cleanup_old_outbox_events(
  retention interval default '7 days',
  max_rows bigint default 1000000,
  batch_size integer default 10000
) returns bigint language plpgsql as $$
declare
  expired bigint;
  surplus bigint;
begin
  delete from event_outbox where id in (
    select id from event_outbox
    where status = 'published' and created_at < app_now() - retention
    order by created_at limit batch_size
  );
  get diagnostics expired = row_count;
  select count(*) - max_rows into surplus from event_outbox where status = 'published';
  if surplus > 0 then
    delete from event_outbox where id in (
      select id from event_outbox where status = 'published'
      order by created_at limit least(surplus, batch_size)
    );
    get diagnostics surplus = row_count;
  end if;
  return expired + greatest(surplus, 0);
end $$;
