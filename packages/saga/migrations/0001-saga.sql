-- One row per saga. Timers (next_run_at, step_deadline, timeout_at, ended_at) go by app_now(); leases
-- (lease_until, begun_at) by the server's own clock, since they measure processes, not business.
create table saga_state (
  saga_id text not null constraint idx_saga_state_saga_id primary key,
  saga_type text not null,
  def_version integer not null,
  -- The request's id: the same request started twice is one saga.
  business_key text not null check (business_key <> ''),
  input_hash text not null,
  -- What the saga is about, such as a device's id: one live saga at a time.
  subject text check (subject <> ''),
  user_id text,
  tenant_id text,
  status text not null default 'RUNNING' check (status in
    ('RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'COMPENSATION_STUCK', 'QUARANTINED')),
  direction text not null default 'do' check (direction in ('do', 'undo')),
  -- The step being executed is the intent: every step with an index <= step_index may have acted.
  -- Both stay at the failing step while the saga is undone.
  current_step text not null,
  step_index integer not null default 0 check (step_index >= 0),
  -- The step whose undo comes next; -1 when none is left. Null while the saga goes forward.
  undo_index integer check (undo_index between -1 and step_index),
  -- Failed tries of the current step in the current direction.
  attempt integer not null default 0,
  -- Retries of the current forward step; stays at the failing one's.
  retry_count integer not null default 0,
  state jsonb not null,
  error_message text,
  error_code text,
  -- The answer to an ask, until the engine has taken it in.
  reply jsonb,
  -- Until when an ask waits for its reply; null when nothing has been asked.
  step_deadline timestamptz,
  next_run_at timestamptz not null,
  timeout_at timestamptz not null,
  -- The executor's id; claimable at once when nobody holds its advisory lock.
  lease_owner text,
  lease_until timestamptz,
  -- Rises with every claim; a checkpoint that carries an older one is refused.
  fence bigint not null default 0,
  -- When the current try may have begun; with lease_until it tells how soon after it an executor died.
  begun_at timestamptz,
  -- Executors that died on the current step since its last checkpoint.
  deaths integer not null default 0,
  -- Rises with every change that a reader could see or a decision depends on.
  version bigint not null default 1,
  traceparent text,
  -- In milliseconds, as it is shown: pages continue after a shown value.
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz not null default now(),
  started_at timestamptz,
  ended_at timestamptz,
  constraint saga_state_business_key unique (saga_type, business_key),
  constraint saga_state_ended check ((status in ('COMPLETED', 'COMPENSATED')) = (ended_at is not null)),
  constraint saga_state_direction check (
    case
      when status in ('RUNNING', 'COMPLETED') then direction = 'do'
      when status in ('COMPENSATING', 'COMPENSATED', 'COMPENSATION_STUCK') then direction = 'undo'
      else true
    end),
  constraint saga_state_undo check ((direction = 'undo') = (undo_index is not null)),
  constraint saga_state_lease check ((lease_owner is null) = (lease_until is null))
) with (
  -- Room for heap-only updates: no column that a checkpoint changes is indexed.
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 500
);

create unique index saga_state_live_subject on saga_state (subject)
  where subject is not null
    and status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED');
create index idx_saga_state_status on saga_state (status, created_at, saga_id);
create index idx_saga_state_timeout on saga_state (timeout_at)
  where status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED');
create index idx_saga_state_recovery on saga_state (next_run_at)
  where status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK');
-- Claimed one at a time, and almost always none: not to be searched for in a long queue.
create index saga_state_suspects on saga_state (next_run_at)
  where deaths >= 2 and status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK');
create index idx_saga_state_created on saga_state (created_at, saga_id);
create index idx_saga_state_user on saga_state (user_id, created_at, saga_id) where user_id is not null;

-- What happened, try by try: the timeline of a saga and the audit of what operators did to it.
create table saga_step_log (
  saga_id text not null,
  id bigint generated always as identity,
  step text not null,
  direction text not null check (direction in ('do', 'undo')),
  attempt integer not null,
  status text not null check (status in
    ('done', 'asked', 'failed', 'expired', 'refused', 'quarantined', 'retried', 'skipped', 'turned_back')),
  error text,
  -- The operator, where it was one.
  actor text,
  executor text,
  fence bigint not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  primary key (saga_id, id)
);
create index idx_saga_step_log_ended on saga_step_log using brin (ended_at);
