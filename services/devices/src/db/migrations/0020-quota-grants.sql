-- Phones that were made while the users service did not answer: their quota is settled when it does. Five at most of each
-- user, whatever the code above believes.
create table quota_grants (
  device_id uuid primary key references devices (id) on delete cascade,
  user_id uuid not null,
  slot integer not null check (slot between 1 and 5),
  created_at timestamptz not null default now(), -- audit
  -- When the users service last refused to count it.
  refused_at timestamptz,
  constraint quota_grants_five_each unique (user_id, slot)
);
