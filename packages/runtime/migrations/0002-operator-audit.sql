-- What operators did by hand, kept for a year: written as an intent before the deed, with its outcome after it, since the
-- bus knows no transaction of ours. `unknown` is what a process leaves that dies in between.
create table operator_audit (
  -- A UUIDv7: sorts by time.
  id uuid primary key,
  -- The user, never a role.
  actor text not null,
  -- Whose thing it was done to; null for the platform's, which all of its operators may see.
  tenant_id text,
  verb text not null,
  target text not null,
  reason text,
  -- Of replays: the queue and which letters.
  details jsonb not null default '{}',
  outcome text not null default 'unknown' check (outcome in ('unknown', 'done', 'refused', 'failed')),
  detail text,
  created_at timestamptz not null default now(),
  ended_at timestamptz
);
-- Which replays an event or a letter went through.
create index idx_operator_audit_details on operator_audit using gin (details jsonb_path_ops);
