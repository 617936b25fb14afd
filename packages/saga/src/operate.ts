/* What reaches a saga from outside of its engine: replies to asks, and an operator's hand. */
import type { AnyTx } from '@cloudphone/db/database'
import { sql } from 'kysely'
import { writeCheckpoints } from './checkpoint.ts'
import { canTurnBack, decide, lastUndoable, type Plan, stepAt } from './decide.ts'
import { IllegalSagaOperation, SagaNotFound } from './errors.ts'
import { type AskOutcome, type RawRow, ROW_COLUMNS, readRow, type SagaRow } from './row.ts'

/**
 * - `accepted`: the saga goes on with it; `duplicate`: it already has a reply to this ask
 * - `late`: the saga has moved on (it timed out, turned back or ended): whoever replied must be told or undone
 * - `unknown`: no such saga
 */
export type ReplyFate = 'accepted' | 'duplicate' | 'late' | 'unknown'

export interface Reply {
  readonly sagaId: string
  readonly step: string
  readonly outcome: AskOutcome
}

/** Hands a saga the reply it waits for. A late one is refused, and the refusal is part of its timeline. */
export async function takeReply(tx: AnyTx, { sagaId, step, outcome }: Reply): Promise<ReplyFate> {
  const row = await lock(tx, sagaId)
  if (row === undefined) return 'unknown'
  const waits =
    row.status === 'RUNNING' && row.currentStep === step && row.replyDueInMs !== null && row.endedAt === null
  if (waits && row.reply !== null) return 'duplicate'
  if (!waits) {
    if (await wasAnswered(tx, { sagaId, step })) return 'duplicate'
    const error = outcome.ok ? 'late reply: done' : `late reply: ${outcome.error.message}`
    await note(tx, { row, step, status: 'refused', error, actor: null })
    return 'late'
  }
  await sql`
    update saga_state set reply = ${JSON.stringify(outcome)}::jsonb, next_run_at = app_now(),
      version = version + 1, updated_at = now()
    where saga_id = ${sagaId}`.execute(tx)
  return 'accepted'
}

/** Tries a waiting, stuck or quarantined saga again at once, with all its quick retries before it. */
export async function retryNow(
  tx: AnyTx,
  { sagaId, actor }: { sagaId: string; actor: string },
  plan: PlanOf,
): Promise<void> {
  const row = await lockLive(tx, sagaId)
  if ((await leaseLeftMs(tx, sagaId)) > 0) {
    throw new IllegalSagaOperation(`Saga ${sagaId} is being tried right now`)
  }
  await note(tx, { row, step: stepAt(row, plan(row)), status: 'retried', error: null, actor })
  await sql`
    update saga_state set
      status = case when status = 'QUARANTINED' and direction = 'do' then 'RUNNING'
        when status = 'QUARANTINED' then 'COMPENSATING' else status end,
      next_run_at = case when step_deadline is null then app_now() else next_run_at end,
      attempt = 0, deaths = 0, dead_executors = null, version = version + 1, updated_at = now()
    where saga_id = ${sagaId}`.execute(tx)
}

export interface Skip {
  readonly sagaId: string
  /** The step as the operator saw it: refused when the saga has moved on since. */
  readonly step: string
  readonly reason: string
  readonly actor: string
}

/**
 * Gives a step up: the undo of a stuck (or quarantined) compensation, whose effect an operator has taken back or
 * accepted by hand; or a step past the point of no return, which counts as done without a result.
 */
export async function skipStep(
  tx: AnyTx,
  { sagaId, step, reason, actor }: Skip,
  plan: PlanOf,
): Promise<void> {
  if (reason.trim() === '') throw new IllegalSagaOperation('A skip needs a reason')
  const row = await lockLive(tx, sagaId)
  const itsPlan = plan(row)
  const at = stepAt(row, itsPlan)
  if (at !== step) throw new IllegalSagaOperation(`Saga ${sagaId} stands at ${at}, not at ${step}`)
  const undoing = row.direction === 'undo' && (row.undoIndex ?? -1) >= 0
  const last = row.stepIndex === itsPlan.steps.length - 1
  if (!undoing && (row.direction === 'undo' || canTurnBack(row, itsPlan) || last)) {
    throw new IllegalSagaOperation(
      `Saga ${sagaId} (${row.status}) at ${step}: only an undo, or a step past the point of no return that is not the last, can be skipped`,
    )
  }
  await note(tx, { row, step, status: 'skipped', error: reason, actor })
  const leftMs = await leaseLeftMs(tx, sagaId)
  const undoIndex = undoing ? lastUndoable(itsPlan, (row.undoIndex ?? 0) - 1) : null
  const stepIndex = undoing ? row.stepIndex : row.stepIndex + 1
  await sql`
    update saga_state set
      status = ${undoing ? 'COMPENSATING' : 'RUNNING'}, undo_index = ${undoIndex},
      step_index = ${stepIndex}, current_step = ${itsPlan.steps[stepIndex]?.name},
      step_deadline = null, reply = null, attempt = 0, deaths = 0, dead_executors = null,
      next_run_at = app_now() + ${leftMs} * interval '1 millisecond',
      retry_count = case when ${undoing} then retry_count else 0 end,
      -- Whoever is still trying the skipped step has lost the saga.
      fence = fence + 1, lease_owner = null, lease_until = null,
      version = version + 1, updated_at = now()
    where saga_id = ${sagaId}`.execute(tx)
}

export interface TurnBack {
  readonly sagaId: string
  /** Becomes the saga's `error_message`. */
  readonly reason: string
  readonly code: string
  readonly actor: string
}

/** Makes a saga compensate now, as its deadline would: a cancelled order, or a quarantined saga that is given up. */
export async function turnSagaBack(
  tx: AnyTx,
  { sagaId, reason, code, actor }: TurnBack,
  plan: PlanOf,
): Promise<void> {
  const row = await lockLive(tx, sagaId)
  const itsPlan = plan(row)
  if (!canTurnBack(row, itsPlan)) {
    throw new IllegalSagaOperation(`Saga ${sagaId} (${row.status}, ${row.currentStep}) cannot turn back`)
  }
  const error = { message: reason, code, retryable: false }
  const decision = decide(row, itsPlan, { kind: 'turned_back', error })
  const delayMs = await leaseLeftMs(tx, sagaId)
  await writeCheckpoints(tx, [
    {
      row,
      decision: { ...decision, next: { kind: 'wait', delayMs, untilTimeout: false, replyWithinMs: null } },
      currentStep: row.currentStep,
      executorId: null,
      leaseTtlMs: 0,
      tookMs: 0,
      release: true,
      actor,
    },
  ])
  // Whoever is still trying the step finds its fence outdated.
  await sql`update saga_state set fence = fence + 1 where saga_id = ${sagaId}`.execute(tx)
}

type PlanOf = (row: SagaRow) => Plan

async function lock(tx: AnyTx, sagaId: string): Promise<SagaRow | undefined> {
  const { rows } = await sql<RawRow>`
    select ${ROW_COLUMNS} from saga_state s where s.saga_id = ${sagaId} for update`.execute(tx)
  return rows[0] && readRow(rows[0])
}

async function lockLive(tx: AnyTx, sagaId: string): Promise<SagaRow> {
  const row = await lock(tx, sagaId)
  if (row === undefined) throw new SagaNotFound(sagaId)
  if (row.endedAt !== null) throw new IllegalSagaOperation(`Saga ${sagaId} has ended ${row.status}`)
  return row
}

/**
 * How long a process may still trust the lease that it holds, and so be in the middle of an effect. What replaces its
 * try waits for that: an undo must not overtake the effect that it undoes.
 */
async function leaseLeftMs(tx: AnyTx, sagaId: string): Promise<number> {
  const { rows } = await sql<{ left_ms: number | null }>`
    select (extract(epoch from lease_until - clock_timestamp()) * 1000)::float8 as left_ms -- real time: a lease
    from saga_state where saga_id = ${sagaId}`.execute(tx)
  return Math.max(0, rows[0]?.left_ms ?? 0)
}

/** Whether the saga went on from this ask by a reply: a second delivery of it is no late one. */
async function wasAnswered(tx: AnyTx, { sagaId, step }: { sagaId: string; step: string }): Promise<boolean> {
  const { rows } = await sql`
    select 1 from saga_step_log
    where saga_id = ${sagaId} and step = ${step} and direction = 'do' and status in ('done', 'refused')
    limit 1`.execute(tx)
  return rows.length > 0
}

async function note(
  tx: AnyTx,
  {
    row,
    step,
    status,
    error,
    actor,
  }: { row: SagaRow; step: string; status: string; error: string | null; actor: string | null },
): Promise<void> {
  await sql`
    insert into saga_step_log
      (saga_id, step, direction, attempt, status, error, actor, fence, started_at, ended_at)
    values (${row.sagaId}, ${step}, ${row.direction}, ${row.attempt + 1}, ${status}, ${error}, ${actor},
      ${row.fence}, app_now(), app_now())`.execute(tx)
}
