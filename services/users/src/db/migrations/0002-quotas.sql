-- Limits and use of each user in one row, so that one guarded update decides a reservation.
create table quotas (
  user_id uuid primary key references users (id),
  -- Null: the default of the settings holds.
  max_devices integer check (max_devices >= 0),
  max_cpu integer check (max_cpu >= 0),
  max_memory integer check (max_memory >= 0),
  max_storage integer check (max_storage >= 0),
  -- What live reservations add up to. May exceed a limit only when the limit was lowered afterwards.
  devices integer not null default 0 check (devices >= 0),
  cpu bigint not null default 0 check (cpu >= 0),
  memory bigint not null default 0 check (memory >= 0),
  storage bigint not null default 0 check (storage >= 0),
  updated_at timestamptz not null default now()
);

create table quota_reservations (
  reservation_id uuid primary key,
  -- Null only in the tombstone of an id that was released before it was ever reserved.
  user_id uuid references users (id),
  state text not null check (state in ('reserved', 'committed', 'released')),
  cpu integer not null check (cpu >= 0),
  memory integer not null check (memory >= 0),
  storage integer not null check (storage >= 0),
  -- When a reservation that nobody committed is given back.
  expires_at timestamptz,
  released_at timestamptz,
  release_reason text check (release_reason in ('released', 'expired')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (user_id is not null or state = 'released'),
  check ((state = 'reserved') = (expires_at is not null)),
  check ((state = 'released') = (released_at is not null)),
  check ((state = 'released') = (release_reason is not null))
);

create index idx_quota_reservations_expires on quota_reservations (expires_at) where state = 'reserved';
create index idx_quota_reservations_live on quota_reservations (reservation_id) where state <> 'released';
create index idx_quota_reservations_user on quota_reservations (user_id) where state <> 'released';
create index idx_quota_reservations_tombstones on quota_reservations (released_at) where state = 'released';
