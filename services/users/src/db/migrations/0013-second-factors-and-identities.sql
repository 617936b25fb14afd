create table second_factors (
  user_id uuid primary key references users (id),
  -- AES-256-GCM: nonce, tag, ciphertext. Who reads this table cannot make codes.
  secret bytea not null,
  -- Null: enrolled, not yet proved by a code.
  confirmed_at timestamptz,
  -- The 30 s step of the last code that was taken (RFC 6238, section 5.2): each is good once.
  last_step bigint not null default 0,
  created_at timestamptz not null default now()
);

create table recovery_codes (
  user_id uuid not null references second_factors (user_id) on delete cascade,
  code_hash bytea not null check (octet_length(code_hash) = 32),
  used_at timestamptz,
  primary key (user_id, code_hash)
);

-- Who somebody is at an OpenID provider.
create table identities (
  issuer text not null,
  subject text not null,
  user_id uuid not null references users (id),
  created_at timestamptz not null default now(),
  primary key (issuer, subject)
);

create index idx_identities_user on identities (user_id);

-- Sign-ins at a provider that are under way. The hash is that of a secret which only the client that began it holds.
create table oidc_flows (
  flow_hash bytea primary key check (octet_length(flow_hash) = 32),
  provider text not null,
  state text not null,
  nonce text not null,
  code_verifier text not null,
  redirect_uri text not null,
  expires_at timestamptz not null
);

create index idx_oidc_flows_expires on oidc_flows (expires_at);
