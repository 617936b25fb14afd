-- The session of quota that an allocation holds at the users service; null for those made before there were any.
alter table allocations add column quota_reservation_id uuid constraint allocations_reservation_key unique;

-- Sessions that must still be given back to the users service; emptied by a loop.
create table quota_releases (
  reservation_id uuid primary key,
  created_at timestamptz not null default now() -- audit
);
