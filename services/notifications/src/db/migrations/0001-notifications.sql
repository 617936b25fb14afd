create table notification (
  id uuid primary key,
  tenant_id uuid,
  user_id uuid not null,
  type text not null check (type <> ''),
  title text not null,
  message text not null,
  english jsonb not null,
  data jsonb not null,
  -- The event that it tells of: one notice per event and user, however often the event comes.
  event_id uuid not null,
  created_at timestamptz not null default app_now(),
  read_at timestamptz,
  unique (event_id, user_id)
);

create index idx_notification_user on notification (user_id, id desc);
create index idx_notification_created on notification (created_at);
