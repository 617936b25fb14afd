import type { QueryExecutorProvider } from 'kysely'
import { sql } from 'kysely'
import type { Decision } from './decide.ts'
import { type RawRow, ROW_COLUMNS, readRow, type SagaRow } from './row.ts'

export interface Checkpoint {
  readonly row: SagaRow
  readonly decision: Decision
  /** Name of the step at `decision.to.stepIndex`. */
  readonly currentStep: string
  readonly executorId: string | null
  readonly leaseTtlMs: number
  /** How long the try took, for the log. */
  readonly tookMs: number
  /** Give the lease back even though the saga could go on: the process stops. */
  readonly release: boolean
  readonly actor?: string
}

/**
 * Writes where a saga goes from `row`: position, result, the next step's intent, the lease's renewal and the log
 * entry in one statement. Undefined when the row is not the one that was read (fence or version have moved on): the
 * caller must then not act on its decision, and a transaction around this must roll back.
 */
export async function checkpoint(db: QueryExecutorProvider, point: Checkpoint): Promise<SagaRow | undefined> {
  // A record set of one: checkpoints of many sagas can share the statement without changing it. The limit tells the
  // planner how many there are; it takes 100 otherwise, and reads the whole table to join them.
  const patches = JSON.stringify([patchOf(point)])
  const { rows } = await sql<RawRow>`
    with patch as (
      select * from jsonb_to_recordset(${patches}::jsonb) as p(
        saga_id text, fence bigint, version bigint, status text, direction text, current_step text,
        step_index integer, undo_index integer, attempt integer, retry_count integer, result jsonb,
        error_message text, error_code text, delay_ms float8, until_timeout boolean, reply_within_ms float8,
        release boolean, ended boolean, lease_ttl_ms float8, executor text, took_ms float8, actor text,
        log_step text, log_direction text, log_attempt integer, log_status text, log_error text)
      limit 1
    ), s as (
      update saga_state t set
        status = p.status, direction = p.direction, current_step = p.current_step,
        step_index = p.step_index, undo_index = p.undo_index, attempt = p.attempt,
        retry_count = p.retry_count, state = t.state || coalesce(p.result, '{}'),
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
        deaths = 0,
        ended_at = case when p.ended then app_now() end,
        version = t.version + 1, updated_at = now()
      from patch p
      where t.saga_id = p.saga_id and t.fence = p.fence and t.version = p.version and t.ended_at is null
      returning t.*
    ), logged as (
      insert into saga_step_log
        (saga_id, step, direction, attempt, status, error, actor, executor, fence, started_at, ended_at)
      select p.saga_id, p.log_step, p.log_direction, p.log_attempt, p.log_status, p.log_error, p.actor,
        p.executor, p.fence, app_now() - p.took_ms * interval '1 millisecond', app_now()
      from patch p join s using (saga_id) where p.log_status is not null
    )
    select ${ROW_COLUMNS} from s`.execute(db)
  return rows[0] && readRow(rows[0])
}

function patchOf({ row, decision, ...point }: Checkpoint): Record<string, unknown> {
  const { to, next, entry } = decision
  const wait = next.kind === 'wait' ? next : undefined
  return {
    saga_id: row.sagaId,
    fence: row.fence,
    version: row.version,
    status: to.status,
    direction: to.direction,
    current_step: point.currentStep,
    step_index: to.stepIndex,
    undo_index: to.undoIndex,
    attempt: to.attempt,
    retry_count: to.retryCount,
    result: decision.result,
    error_message: to.errorMessage,
    error_code: to.errorCode,
    delay_ms: wait?.delayMs ?? null,
    until_timeout: wait?.untilTimeout ?? false,
    reply_within_ms: wait?.replyWithinMs ?? null,
    release: point.release || next.kind !== 'go_on',
    ended: to.status === 'COMPLETED' || to.status === 'COMPENSATED',
    lease_ttl_ms: point.leaseTtlMs,
    executor: point.executorId,
    took_ms: point.tookMs,
    actor: point.actor ?? null,
    log_step: entry?.step ?? null,
    log_direction: entry?.direction ?? null,
    log_attempt: entry?.attempt ?? null,
    log_status: entry?.status ?? null,
    log_error: entry?.error ?? null,
  }
}
