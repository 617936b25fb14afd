create table tenants (
  id uuid primary key,
  slug text not null constraint tenants_slug_key unique check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name text not null,
  created_at timestamptz not null default now()
);

create table users (
  id uuid primary key,
  tenant_id uuid not null references tenants (id),
  -- Lower case, so that one mailbox has one account whatever its owner types.
  email text not null constraint users_email_key unique check (email = lower(email)),
  name text not null,
  password_hash text not null,
  role text not null check (role in ('admin', 'operator', 'member')),
  status text not null default 'active' check (status in ('active', 'suspended')),
  -- The aggregate's version: +1 per event about this user.
  version integer not null default 1 check (version > 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index idx_users_tenant on users (tenant_id, id desc);

-- A session is a family of refresh tokens: each use of one makes the next, and the use of a used one ends them all.
create table sessions (
  id uuid primary key,
  user_id uuid not null references users (id),
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null,
  -- Its last token's expiry: afterwards nothing can bring the session back.
  expires_at timestamptz not null,
  revoked_at timestamptz,
  revoke_reason text check (revoke_reason in ('logout', 'reuse')),
  check ((revoked_at is null) = (revoke_reason is null))
);

create index idx_sessions_user on sessions (user_id, id desc);
create index idx_sessions_expires on sessions (expires_at);

create table refresh_tokens (
  -- SHA-256 of the token: who reads this table cannot sign in with it.
  token_hash bytea primary key check (octet_length(token_hash) = 32),
  session_id uuid not null references sessions (id) on delete cascade,
  expires_at timestamptz not null,
  used_at timestamptz,
  created_at timestamptz not null default now()
);

-- One token of a family is good at a time.
create unique index refresh_tokens_live_key on refresh_tokens (session_id) where used_at is null;

create table api_keys (
  id uuid primary key,
  user_id uuid not null references users (id),
  name text not null,
  prefix text not null,
  -- SHA-256 of the key: it has 256 random bits, so a slow hash would add nothing.
  key_hash bytea not null constraint api_keys_hash_key unique check (octet_length(key_hash) = 32),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz
);

create index idx_api_keys_user on api_keys (user_id, id desc);

-- The keys that access tokens are signed with. Public halves of retired ones stay, so that their tokens can be verified.
create table signing_keys (
  kid text primary key,
  private_jwk jsonb not null,
  public_jwk jsonb not null,
  active boolean not null,
  created_at timestamptz not null default now()
);

-- Instances that start together agree on one key: the second insert finds the first.
create unique index signing_keys_active_key on signing_keys ((true)) where active;
