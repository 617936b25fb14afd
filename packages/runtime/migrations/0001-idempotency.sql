-- What was answered under an Idempotency-Key, for 24 hours. `request_key` names the request for ever: a retry after a
-- crash runs again under the same request_key, so that what it starts is found instead of started twice.
create table idempotency_key (
  caller text not null,
  route text not null,
  key text not null,
  body_hash text not null,
  request_key uuid not null,
  -- Null while the first request is being handled.
  response jsonb,
  answered boolean not null default false,
  -- Until then a second request is told to wait; afterwards the first is taken for dead and the second carries on.
  busy_until timestamptz not null,
  expires_at timestamptz not null,
  primary key (caller, route, key)
);

create index idx_idempotency_key_expires on idempotency_key (expires_at);
