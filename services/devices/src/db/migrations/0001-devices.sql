-- Where phones can live. The counters are moved only together with a row of node_holdings, in one transaction.
create table nodes (
  id uuid primary key,
  name text not null unique,
  provider_type text not null,
  reach_address text not null,
  cpu_total integer not null check (cpu_total >= 0),
  memory_total_mb bigint not null check (memory_total_mb >= 0),
  phones_total integer not null check (phones_total >= 0),
  cpu_used integer not null default 0 check (cpu_used >= 0),
  memory_used_mb bigint not null default 0 check (memory_used_mb >= 0),
  phones_used integer not null default 0 check (phones_used >= 0),
  cordoned boolean not null default false,
  created_at timestamptz not null default now() -- audit
);

create table devices (
  id uuid primary key,
  -- Order of arrival: what lists are paged by. The id is derived from the request, so it does not sort by time.
  ordinal bigint generated always as identity unique,
  tenant_id uuid not null,
  -- The owner of a dedicated phone; null for a pooled one.
  user_id uuid,
  created_by uuid not null,
  creation_saga_id text not null,
  name text not null check (char_length(name) between 1 and 64),
  status text not null check (status in ('CREATING', 'RUNNING', 'STOPPED', 'ERROR', 'MAINTENANCE', 'DELETING')),
  type text not null check (type in ('phone', 'tablet')),
  provider_type text not null,
  cpu_cores integer not null check (cpu_cores between 1 and 16),
  memory_mb integer not null check (memory_mb between 512 and 65536),
  storage_mb integer not null check (storage_mb > 0),
  resolution text not null,
  dpi integer not null,
  android_version text not null,
  provider_specific_config jsonb not null default '{}',
  metadata jsonb not null default '{}',
  -- What the provider made of it; bound by CREATE_DATABASE_RECORD.
  node_id uuid references nodes (id),
  external_id text unique,
  container_id text,
  container_name text,
  connection_info jsonb,
  provider_config jsonb,
  adb_host text,
  adb_port integer,
  -- True once device.created was sent: from then on its end is told by device.deleted as well.
  announced boolean not null default false,
  -- Who holds a pooled phone, and since which fence. The fence never falls.
  allocation_id uuid,
  holder_user_id uuid,
  fence bigint not null default 0 check (fence >= 0),
  -- The list of adb keys the phone should have (wanted) and has (applied); see domain/adb-key-applier.ts.
  keys_wanted bigint not null default 1,
  keys_applied bigint not null default 0,
  keys_claim uuid,
  keys_claim_until timestamptz,
  -- Number of the last event told about this device.
  version bigint not null default 0,
  -- Which start of the phone the row speaks of, as the provider counts them.
  generation bigint not null default 0,
  restart_attempts integer not null default 0,
  -- When the restart policy acts next; null when it has nothing to do.
  restart_at timestamptz,
  -- Stopped by the platform's own shutdown: started again when the platform is.
  resume_on_start boolean not null default false,
  last_error text,
  -- Last proof of life.
  last_active_at timestamptz,
  started_at timestamptz,
  created_at timestamptz not null default now(), -- audit
  updated_at timestamptz not null default now(), -- audit
  constraint devices_holder_is_whole check ((allocation_id is null) = (holder_user_id is null)),
  constraint devices_dedicated_has_no_holder check (user_id is null or allocation_id is null),
  constraint devices_running_has_start check (status <> 'RUNNING' or started_at is not null)
) with (fillfactor = 80);

create index idx_devices_tenant on devices (tenant_id, ordinal desc);
create index idx_devices_user on devices (user_id) where user_id is not null;
create index idx_devices_holder on devices (holder_user_id) where holder_user_id is not null;
create unique index idx_devices_allocation on devices (allocation_id) where allocation_id is not null;
create index idx_devices_restart on devices (restart_at) where restart_at is not null;
create index idx_devices_keys on devices (id) where keys_applied < keys_wanted;

-- What is left of a device that is gone, for 30 days: GET answers 410, late events are refused.
create table device_tombstones (
  id uuid primary key,
  saga_id text not null,
  reason text not null,
  kind text not null check (kind in ('creation_failed', 'deleted')),
  tenant_id uuid not null,
  user_id uuid,
  deleted_at timestamptz not null default app_now()
);
create index idx_device_tombstones_deleted_at on device_tombstones (deleted_at);

-- Capacity that a device takes on its node.
create table node_holdings (
  device_id uuid primary key references devices (id),
  node_id uuid not null references nodes (id),
  cpu integer not null,
  memory_mb integer not null
);

-- Live holdings only. webrtc and scrcpy ports stay null for providers that have none.
create table port_allocations (
  device_id uuid primary key references devices (id),
  node_id uuid not null references nodes (id),
  adb_port integer not null check (adb_port between 1 and 65535),
  webrtc_port integer check (webrtc_port between 1 and 65535),
  scrcpy_port integer check (scrcpy_port between 1 and 65535),
  created_at timestamptz not null default now(), -- audit
  constraint port_allocations_adb unique (node_id, adb_port),
  constraint port_allocations_webrtc unique (node_id, webrtc_port),
  constraint port_allocations_scrcpy unique (node_id, scrcpy_port)
);

-- Ports that nobody gets for a while: cooling down after use, or taken by a stranger on the node.
create table port_holds (
  node_id uuid not null references nodes (id),
  port integer not null,
  kind text not null check (kind in ('cooldown', 'blocked')),
  until timestamptz not null,
  reason text not null,
  primary key (node_id, port)
);

create table adb_keys (
  id uuid primary key,
  ordinal bigint generated always as identity unique,
  user_id uuid not null,
  public_key text not null,
  label text not null,
  fingerprint text not null,
  created_at timestamptz not null default now(), -- audit
  unique (user_id, fingerprint)
);

-- The platform's own adb key: made once, by whoever comes first.
create table platform_adb_key (
  only_one boolean primary key default true check (only_one),
  private_key text not null,
  public_key text not null,
  created_at timestamptz not null default now() -- audit
);

-- Quota that must still be given back to the users service; emptied by a loop.
create table quota_releases (
  device_id uuid primary key,
  created_at timestamptz not null default now() -- audit
);
