-- The tenant that runs the platform: its operators look after what all tenants share.
alter table tenants add column is_platform boolean not null default false;
update tenants set is_platform = true where slug = 'default';
create unique index tenants_platform_key on tenants ((true)) where is_platform;

alter table users drop constraint users_role_check;
alter table users add constraint users_role_check check (role in ('admin', 'operator', 'member', 'viewer'));
-- The issue of the user's access tokens: those of an earlier one are refused everywhere.
alter table users add column token_epoch integer not null default 0 check (token_epoch >= 0);

alter table sessions drop constraint sessions_revoke_reason_check;
alter table sessions add constraint sessions_revoke_reason_check
  check (revoke_reason in ('logout', 'reuse', 'revoked', 'user'));

-- Null: all that the owner's role may, but for the owner's own credentials.
alter table api_keys add column scopes text[] check (cardinality(scopes) > 0);

-- next: published, not in use yet; active: signs; retired: its last tokens are still good.
alter table signing_keys add column activates_at timestamptz;
alter table signing_keys add column gone_at timestamptz;
alter table signing_keys add check (not active or gone_at is null);
create unique index signing_keys_next_key on signing_keys ((true)) where not active and gone_at is null;

-- What ended before its time. Services read this as a feed; `tx` makes that safe without a gap: a transaction that
-- commits late has an id that no reader has passed yet.
create table revocations (
  id bigint generated always as identity primary key,
  tx xid8 not null default pg_current_xact_id(),
  kind text not null check (kind in ('session', 'user', 'keys')),
  -- The session, the API key or the user.
  subject uuid check ((subject is null) = (kind = 'keys')),
  epoch integer check ((epoch is null) = (kind <> 'user')),
  created_at timestamptz not null default now(),
  -- Every token that it is about has expired by then.
  forget_at timestamptz not null
);

create index idx_revocations_tx on revocations (tx);
create index idx_revocations_forget on revocations (forget_at);
