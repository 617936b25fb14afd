-- What a consumer has applied, written in the transaction of the effect. event_time is the instant inside the
-- event's UUIDv7, never that of arrival: a replayed event meets its old row in the same partition.
create table inbox (
  consumer text not null,
  event_time timestamptz not null,
  event_id uuid not null,
  processed_at timestamptz not null default now(), -- audit
  primary key (consumer, event_time, event_id)
) partition by range (event_time);

-- For clocks that are far off; empty in good order.
create table inbox_default partition of inbox default;

-- Makes the partitions of the current week and of `weeks_ahead` weeks after it (weeks begin on Monday, UTC).
-- Returns how many are new.
create function ensure_inbox_partitions(weeks_ahead integer default 2) returns integer language plpgsql as $$
declare
  first_day timestamp := date_trunc('week', app_now() at time zone 'UTC');
  from_time timestamptz;
  to_time timestamptz;
  name text;
  made integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('cloudphone.inbox.' || current_schema(), 0));
  for week in 0..weeks_ahead loop
    from_time := (first_day + week * interval '7 days') at time zone 'UTC';
    to_time := (first_day + (week + 1) * interval '7 days') at time zone 'UTC';
    name := 'inbox_' || to_char(first_day + week * interval '7 days', 'YYYYMMDD');
    continue when to_regclass(format('%I', name)) is not null;
    execute format('create table %I (like inbox including all)', name);
    -- A row of this week may have come early into the default partition, which would refuse the new one.
    execute format('with moved as (delete from inbox_default where event_time >= %L and event_time < %L returning *)
      insert into %I select * from moved', from_time, to_time, name);
    execute format('alter table inbox attach partition %I for values from (%L) to (%L)', name, from_time, to_time);
    made := made + 1;
  end loop;
  return made;
end $$;

-- Drops the partitions whose every event is older than `retention`, and such rows of the default one. Longer than any
-- dead letter may wait for its replay. Returns how many partitions went.
create function purge_inbox(retention interval default '35 days') returns integer language plpgsql as $$
declare
  partition record;
  gone integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('cloudphone.inbox.' || current_schema(), 0));
  for partition in
    select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass('inbox') and c.relname ~ '^inbox_[0-9]{8}$'
      and (to_timestamp(right(c.relname, 8), 'YYYYMMDD')::timestamp + interval '7 days') at time zone 'UTC' < app_now() - retention
  loop
    execute format('drop table %I', partition.name);
    gone := gone + 1;
  end loop;
  delete from inbox_default where event_time < app_now() - retention;
  return gone;
end $$;

select ensure_inbox_partitions();
