alter table users add column email_verified_at timestamptz;

-- What a link in a mail stands for. The token itself is nowhere: it is made from the id and the platform's secret, so
-- that a mail that is sent again holds the same one.
create table one_time_tokens (
  id uuid primary key,
  purpose text not null check (purpose in ('password_reset', 'email_verification', 'invitation')),
  token_hash bytea not null constraint one_time_tokens_hash_key unique check (octet_length(token_hash) = 32),
  email text not null check (email = lower(email)),
  -- Whose account it is about; an invitation has none yet, and says what it will be.
  user_id uuid references users (id),
  tenant_id uuid references tenants (id),
  role text check (role in ('admin', 'operator', 'member', 'viewer')),
  invited_by uuid references users (id),
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz,
  check ((purpose = 'invitation') = (user_id is null)),
  check ((purpose = 'invitation') = (tenant_id is not null)),
  check ((purpose = 'invitation') = (role is not null))
);

create index idx_one_time_tokens_user on one_time_tokens (user_id);
create index idx_one_time_tokens_tenant on one_time_tokens (tenant_id, id desc) where purpose = 'invitation';
create index idx_one_time_tokens_expires on one_time_tokens (expires_at);

-- Mails that are to be sent; a sent one is gone. A request for an unknown address leaves a row too, which whoever sends
-- finds out: thus the request itself takes the same time for all addresses.
create table mails (
  id uuid primary key,
  kind text not null check (kind in ('password_reset', 'email_verification', 'invitation', 'registration')),
  email text not null check (email = lower(email)),
  attempts integer not null default 0 check (attempts >= 0),
  next_at timestamptz not null default app_now(),
  -- Given up: it stays a while for who looks why.
  failed_at timestamptz,
  last_error text,
  created_at timestamptz not null default now()
);

create index idx_mails_due on mails (next_at) where failed_at is null;
create index idx_mails_failed on mails (failed_at) where failed_at is not null;
