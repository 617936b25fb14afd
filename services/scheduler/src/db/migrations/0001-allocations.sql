-- What the scheduler knows of the pooled phones, from the devices service's events. A row is never deleted: that of a
-- phone that is gone stays as a tombstone, which refuses whatever is heard of it later.
create table device_mirror (
  device_id uuid primary key,
  name text not null,
  tenant_id uuid not null,
  status text not null check (status in ('CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'MAINTENANCE', 'DELETING')),
  availability text not null
    check (availability in ('available', 'leased', 'cleaning', 'quarantined', 'unavailable')),
  -- The highest fence handed out or heard of; it never falls.
  fence bigint not null default 0 check (fence >= 0),
  -- Version of the last event that the row reflects.
  version integer not null check (version > 0),
  deleted boolean not null default false,
  -- The phone that has been free for longest goes first.
  available_since timestamptz not null default app_now(),
  created_at timestamptz not null default now(), -- audit
  updated_at timestamptz not null default now(), -- audit
  constraint device_mirror_available_runs
    check (availability <> 'available' or (status = 'RUNNING' and not deleted))
) with (fillfactor = 80);

create index idx_device_mirror_available on device_mirror (tenant_id, available_since)
  where availability = 'available';

-- Who is in which tenant, from user.created.
create table user_mirror (
  user_id uuid primary key,
  tenant_id uuid not null,
  created_at timestamptz not null default now() -- audit
);

create table allocations (
  id uuid primary key,
  -- Names the request for ever: a retried one finds the first.
  request_key text not null constraint allocations_request_key unique check (request_key <> ''),
  tenant_id uuid not null,
  user_id uuid not null,
  device_id uuid not null references device_mirror (device_id),
  device_name text not null,
  status text not null check (status in
    ('PENDING', 'QUEUED', 'ACTIVE', 'RELEASING', 'RELEASED', 'EXPIRED', 'CANCELLED', 'FAILED')),
  -- Under which the phone is held, and under which it is taken back: both taken when it was claimed, so that undoing a
  -- grant needs nothing that came later.
  fence bigint not null check (fence > 0),
  release_fence bigint not null check (release_fence > fence),
  duration_minutes integer not null check (duration_minutes between 1 and 1440),
  grant_saga_id text not null,
  release_saga_id text,
  -- Something happened to the phone before the grant was through: it will not become active.
  doomed_reason text,
  doomed_detail text,
  -- The phone was said to be in ERROR; the sweep takes it back if nobody has by then.
  phone_lost_at timestamptz,
  reason text,
  detail text not null default '',
  -- Number of the last event told about this allocation.
  version integer not null default 0,
  created_at timestamptz not null default now(), -- audit
  -- Milliseconds, as events carry them: what is billed is what is kept here.
  allocated_at timestamptz(3),
  expires_at timestamptz(3),
  -- When the hold ended. Fixed when the release begins, so that nobody pays for how long it takes.
  released_at timestamptz(3),
  constraint allocations_active_has_times check (
    status not in ('ACTIVE', 'RELEASING', 'RELEASED', 'EXPIRED')
    or (allocated_at is not null and expires_at is not null)),
  constraint allocations_ended_says_why check (
    (status in ('RELEASING', 'RELEASED', 'EXPIRED', 'CANCELLED', 'FAILED'))
    = (reason is not null and released_at is not null)),
  constraint allocations_ends_after_start check (released_at >= allocated_at)
) with (fillfactor = 80);

-- Invariant 4: a phone is held at most once, whatever the code above believes.
create unique index allocations_live_device on allocations (device_id)
  where status in ('PENDING', 'ACTIVE', 'RELEASING');
create index idx_allocations_user on allocations (user_id, id desc);
create index idx_allocations_expires on allocations (expires_at) where status = 'ACTIVE';
create index idx_allocations_lost on allocations (phone_lost_at)
  where status = 'ACTIVE' and phone_lost_at is not null;
