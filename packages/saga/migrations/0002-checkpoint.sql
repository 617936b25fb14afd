-- Which executors died on the current step since its last checkpoint, as far as the others could see: one that only lost
-- its session says so when it is back, and its death is taken back. Meaningless while deaths is 0.
alter table saga_state add column dead_executors text[];

-- The two statements of a saga's way, as functions for the sake of their plans: these are made once per connection,
-- behind a pooler too. Parsing and planning were two thirds of a checkpoint's time.

-- Starts sagas: no row for one whose business key, id or live subject is there already. One with an executor is claimed
-- by its insert. sagas: an array of objects with the columns of `seed` below.
create function saga_start(sagas jsonb)
returns table (
  saga_id text, created_at timestamptz, updated_at timestamptz, started_at timestamptz, timeout_at timestamptz
) language plpgsql as $$
#variable_conflict use_column
begin
  return query
    insert into saga_state as s (saga_id, saga_type, def_version, business_key, input_hash, subject, user_id,
      tenant_id, current_step, state, next_run_at, timeout_at, traceparent,
      fence, lease_owner, lease_until, begun_at, started_at)
    select saga_id, saga_type, def_version, business_key, input_hash, subject, user_id,
      tenant_id, first_step, input, app_now(), app_now() + timeout_ms * interval '1 millisecond', traceparent,
      case when executor is null then 0 else 1 end, executor,
      case when executor is not null
        then clock_timestamp() + lease_ttl_ms * interval '1 millisecond' end, -- real time: a lease
      case when executor is not null then clock_timestamp() end, -- real time: a lease
      case when executor is not null then app_now() end
    from jsonb_to_recordset(sagas) as seed(
      saga_id text, saga_type text, def_version integer, business_key text, input_hash text, subject text,
      user_id text, tenant_id text, first_step text, input jsonb, timeout_ms float8, traceparent text,
      executor text, lease_ttl_ms float8)
    on conflict do nothing
    returning s.saga_id, s.created_at, s.updated_at, s.started_at, s.timeout_at;
end $$;

-- The checkpoints of many sagas, each guarded by the fence and the version under which it was decided. Always goes by
-- the primary key: a plan that was made while the table is small would else read all of it, for as long as the
-- connection lives, however large it grows.
--
-- patches: an array of objects with the columns of `patch` below. Returns a row for each that was written; for one that
-- is missing nothing was, since its saga has moved on.
create function saga_checkpoint(patches jsonb)
returns table (saga_id text, fence bigint, version bigint, updated_at timestamptz, ended_at timestamptz, remaining_ms float8)
language plpgsql
set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  saga_ids text[] := array(select one ->> 'saga_id' from jsonb_array_elements(patches) as one);
begin
  return query
    with patch as (
      select * from jsonb_to_recordset(patches) as p(
        saga_id text, fence bigint, version bigint, status text, direction text, current_step text,
        step_index integer, undo_index integer, attempt integer, retry_count integer, result jsonb,
        error_message text, error_code text, delay_ms float8, until_timeout boolean, reply_within_ms float8,
        release boolean, ended boolean, lease_ttl_ms float8, executor text, took_ms float8, actor text,
        log_step text, log_direction text, log_attempt integer, log_status text, log_error text)
    ), s as (
      update saga_state t set
        status = p.status, direction = p.direction, current_step = p.current_step,
        step_index = p.step_index, undo_index = p.undo_index, attempt = p.attempt,
        retry_count = p.retry_count,
        state = case when p.result is null then t.state else t.state || p.result end,
        error_message = p.error_message, error_code = p.error_code, reply = null,
        step_deadline = app_now() + p.reply_within_ms * interval '1 millisecond',
        next_run_at = case
          when p.delay_ms is null then t.next_run_at
          when p.until_timeout then least(app_now() + p.delay_ms * interval '1 millisecond', t.timeout_at)
          else app_now() + p.delay_ms * interval '1 millisecond' end,
        lease_owner = case when p.release then null else t.lease_owner end,
        lease_until = case when p.release or t.lease_owner is null then null
          else clock_timestamp() + p.lease_ttl_ms * interval '1 millisecond' end, -- real time: a lease
        begun_at = clock_timestamp(), -- real time: a lease
        deaths = 0, dead_executors = null,
        ended_at = case when p.ended then app_now() end,
        version = t.version + 1, updated_at = now() -- audit
      from patch p
      -- Twice the same condition: the first one is known before the join, whichever side that begins with.
      where t.saga_id = any(saga_ids) and t.saga_id = p.saga_id and t.fence = p.fence and t.version = p.version and t.ended_at is null
      returning t.saga_id, t.fence, t.version, t.updated_at, t.ended_at, t.timeout_at,
        p.log_step, p.log_direction, p.log_attempt, p.log_status, p.log_error, p.actor, p.executor, p.took_ms
    ), logged as (
      insert into saga_step_log
        (saga_id, step, direction, attempt, status, error, actor, executor, fence, started_at, ended_at)
      select saga_id, log_step, log_direction, log_attempt, log_status, log_error, actor, executor, fence,
        app_now() - took_ms * interval '1 millisecond', app_now()
      from s where log_status is not null
    )
    select s.saga_id, s.fence, s.version, s.updated_at, s.ended_at,
      (extract(epoch from s.timeout_at - app_now()) * 1000)::float8
    from s;
end $$;

-- The legal ways of a status, for every writer there will ever be: above all, an end is an end.
create function refuse_saga_edge() returns trigger language plpgsql as $$
begin
  raise exception 'Saga % cannot go from % to %', old.saga_id, old.status, new.status using errcode = 'check_violation';
end $$;
create trigger saga_state_edges before update of status on saga_state for each row
  when (old.status <> new.status and not (
    (old.status = 'RUNNING' and new.status in ('COMPLETED', 'COMPENSATING', 'QUARANTINED'))
    or (old.status = 'COMPENSATING' and new.status in ('COMPENSATED', 'COMPENSATION_STUCK', 'QUARANTINED'))
    or (old.status = 'COMPENSATION_STUCK' and new.status in ('COMPENSATING', 'COMPENSATED', 'QUARANTINED'))
    or (old.status = 'QUARANTINED' and new.status in ('RUNNING', 'COMPENSATING'))))
  execute function refuse_saga_edge();
