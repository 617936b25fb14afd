create table apps (
  id uuid primary key,
  tenant_id uuid not null,
  package_name text not null check (package_name <> ''),
  version_code bigint not null check (version_code >= 0),
  version_name text not null,
  label text not null,
  permissions text[] not null,
  -- As wide as a hostile manifest can make them.
  min_sdk bigint,
  target_sdk bigint,
  size_bytes bigint not null check (size_bytes > 0),
  sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  has_icon boolean not null,
  uploaded_by uuid not null,
  created_at timestamptz not null default app_now(),
  -- The same bytes are the same app.
  constraint apps_tenant_bytes unique (tenant_id, sha256)
);

create index idx_apps_tenant on apps (tenant_id, id desc);

create table installations (
  id uuid primary key,
  -- A request that is tried again finds its first installation.
  request_key text not null constraint installations_request_key unique,
  tenant_id uuid not null,
  -- Not a foreign key: what was installed stays in the list when the app is deleted.
  app_id uuid not null,
  device_id uuid not null,
  user_id uuid not null,
  package_name text not null,
  -- The right under which it was asked for.
  allocation_id uuid,
  fence bigint not null check (fence >= 0),
  status text not null default 'pending' check (status in ('pending', 'installing', 'installed', 'failed')),
  reason text,
  version integer not null default 1 check (version > 0),
  requested_at timestamptz not null default app_now(),
  ended_at timestamptz,
  constraint installations_ended check ((status in ('installed', 'failed')) = (ended_at is not null)),
  constraint installations_reason check ((status = 'failed') = (reason is not null))
);

-- One live installation of an app on a phone under one right: who asks again gets the first.
create unique index installations_live_right on installations (app_id, device_id, user_id, fence)
  where status in ('pending', 'installing');
create index idx_installations_tenant on installations (tenant_id, id desc);
create index idx_installations_user on installations (user_id, id desc);
create index idx_installations_device on installations (device_id, id desc);
create index idx_installations_live on installations (requested_at) where status in ('pending', 'installing');
