-- One row per metered phone: whoever changes its records locks it first, so that facts about one phone queue up.
create table meters (
  device_id uuid primary key,
  created_at timestamptz not null default now() -- audit
);

create table usage_records (
  -- Made of what the run is: the same run can only ever have this record.
  id uuid primary key,
  ordinal bigint generated always as identity unique,
  device_id uuid not null references meters (device_id),
  user_id uuid not null,
  tenant_id uuid not null,
  allocation_id uuid,
  start_time timestamptz(3) not null,
  -- Null while the meter runs.
  end_time timestamptz(3),
  -- Whole seconds.
  duration bigint,
  -- Pinned at the start.
  price_micro_per_hour bigint not null check (price_micro_per_hour >= 0),
  cost_micro bigint check (cost_micro >= 0),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  closed_by text check (closed_by in
    ('device.stopped', 'device.failed', 'device.deleted', 'allocation.released', 'superseded')),
  opened_by_event uuid not null,
  closed_by_event uuid,
  created_at timestamptz not null default now(), -- audit
  updated_at timestamptz not null default now(), -- audit
  constraint usage_records_end_after_start check (end_time >= start_time),
  constraint usage_records_closed_is_whole check (
    (end_time is null) = (duration is null) and (end_time is null) = (cost_micro is null)
    and (end_time is null) = (closed_by is null) and (end_time is null) = (closed_by_event is null)),
  constraint usage_records_duration check (duration = floor(extract(epoch from end_time - start_time))),
  -- domain/cost.ts said once more, in another arithmetic: the product over 3600, half to even.
  constraint usage_records_cost check (cost_micro = div(duration::numeric * price_micro_per_hour, 3600)
    + (mod(duration::numeric * price_micro_per_hour, 3600) * 2
       + mod(div(duration::numeric * price_micro_per_hour, 3600), 2) > 3600)::int),
  -- Nobody pays twice for a moment of a phone. An UUID has 128 bits, as an IPv6 address has, and for those PostgreSQL's
  -- core has a GiST operator class with `=`; for uuid it takes the extension btree_gist, which a role that owns no more
  -- than its schema may not create. An open record reaches to infinity, so a phone has one at most.
  constraint usage_records_no_overlap exclude using gist (
    (regexp_replace(replace(device_id::text, '-', ''), '(.{4})(?!$)', '\1:', 'g')::inet) inet_ops with =,
    tstzrange(start_time, end_time) with &&)
);

create index idx_usage_records_user on usage_records (user_id, ordinal desc);
create index idx_usage_records_tenant on usage_records (tenant_id, ordinal desc);
create index idx_usage_records_device on usage_records (device_id, start_time desc);
create unique index usage_records_open_device on usage_records (device_id) where end_time is null;

-- Ends that name no run: kept, since the start that they end may be heard of later.
create table loose_ends (
  device_id uuid not null references meters (device_id),
  at timestamptz(3) not null,
  closed_by text not null check (closed_by in ('device.stopped', 'device.failed', 'device.deleted')),
  event_id uuid not null,
  created_at timestamptz not null default now(), -- audit
  primary key (device_id, at, closed_by)
);
