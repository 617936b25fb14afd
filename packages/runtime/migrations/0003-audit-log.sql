-- The record of operators' deeds becomes the audit log of every change: a change and its record commit together, so such
-- a record is `done` from the start. Only what an operator does outside of a transaction is begun as `unknown`.
alter table operator_audit rename to audit_log;
alter index idx_operator_audit_details rename to idx_audit_log_details;
alter table audit_log
  -- What it was and what it became, without secrets and cut to a bounded size; null where there was or is nothing.
  add column state_before jsonb,
  add column state_after jsonb,
  -- Of the request that did it; null for what the platform did by itself.
  add column request_id text,
  -- Of the session, or the API key.
  add column session_id text,
  add column address text;
comment on column audit_log.actor is 'a user''s id, system:<part> for the platform itself, nobody for an unknown caller';

-- Searches are newest first, by id; each index serves one filter in that order.
create index idx_audit_log_tenant on audit_log (tenant_id, id);
create index idx_audit_log_actor on audit_log (actor, id);
create index idx_audit_log_target on audit_log (target, id);
-- Prefixes are searched for.
create index idx_audit_log_verb on audit_log (verb text_pattern_ops, id);
create index idx_audit_log_request on audit_log (request_id) where request_id is not null;
-- Nearly all are done: nobody needs an index to find those.
create index idx_audit_log_outcome on audit_log (outcome, id) where outcome <> 'done';
create index idx_audit_log_created on audit_log (created_at);

-- What happened stays on record: an entry may get its outcome, once, and go when it is as old as the purge says.
create function guard_audit_log() returns trigger language plpgsql set search_path from current as $$
declare
  outcome_only constant text[] := array['outcome', 'detail', 'ended_at'];
begin
  if tg_op = 'UPDATE' then
    if old.outcome = 'unknown' and to_jsonb(new) - outcome_only = to_jsonb(old) - outcome_only then
      return new;
    end if;
  elsif tg_op = 'DELETE' then
    if current_setting('cloudphone.audit_purge', true) = 'on' and old.created_at < app_now() - interval '1 day' then
      return old;
    end if;
  end if;
  raise exception 'the audit log is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end $$;
create trigger audit_log_guard before update or delete on audit_log
  for each row execute function guard_audit_log();
create trigger audit_log_guard_truncate before truncate on audit_log
  for each statement execute function guard_audit_log();
