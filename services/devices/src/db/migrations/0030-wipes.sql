-- What a pooled phone has on it: nothing of anybody (clean), what its last holder left (soiled), or nobody knows, since a wipe
-- failed or could not be proved (quarantined). Only a clean one may be held, whatever the code above believes.
alter table devices
  add column hygiene text not null default 'clean' constraint devices_hygiene check (hygiene in ('clean', 'soiled', 'quarantined')),
  add constraint devices_held_is_clean check (hygiene = 'clean' or allocation_id is null);
create index idx_devices_soiled on devices (id) where hygiene = 'soiled';

-- The proof of every wipe: how it was done and what was found left afterwards. Kept when the device is gone.
create table device_wipes (
  saga_id text primary key,
  device_id uuid not null,
  tenant_id uuid not null,
  -- The fence under which the phone was nobody's when it was wiped.
  fence bigint not null,
  reason text not null check (reason in ('handover', 'reset')),
  method text not null,
  -- Number of entries erased, as the provider counts them.
  erased integer not null check (erased >= 0),
  -- Names of what was still there: a proved wipe has none.
  residue text[] not null,
  wiped_at timestamptz not null default app_now(),
  constraint device_wipes_are_proved check (cardinality(residue) = 0)
);
create index idx_device_wipes_device on device_wipes (device_id, wiped_at desc);
create index idx_device_wipes_wiped_at on device_wipes (wiped_at);
