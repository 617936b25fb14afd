import { type RawBuilder, sql } from 'kysely'
import type { Position } from './decide.ts'
import type { Direction, SagaStatus } from './definition.ts'
import type { Failure } from './errors.ts'

/** The answer to an ask. */
export type AskOutcome =
  | { readonly ok: true; readonly result?: object | undefined }
  | {
      readonly ok: false
      readonly error: {
        readonly message: string
        readonly code?: string | undefined
        readonly retryable?: boolean | undefined
      }
    }

/** A row of `saga_state`, with its timers as they stood when it was read. */
export interface SagaRow extends Position {
  readonly sagaId: string
  readonly type: string
  readonly defVersion: number
  readonly businessKey: string
  readonly subject: string | null
  readonly userId: string | null
  readonly tenantId: string | null
  readonly currentStep: string
  readonly state: Record<string, unknown>
  readonly reply: AskOutcome | null
  readonly fence: number
  readonly version: number
  readonly deaths: number
  readonly traceparent: string | null
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly startedAt: Date | null
  readonly endedAt: Date | null
  readonly timeoutAt: Date
  /** Until the saga's deadline; negative when it has passed. */
  readonly remainingMs: number
  /** Until the reply's deadline; null when nothing has been asked. */
  readonly replyDueInMs: number | null
}

interface RawRow {
  saga_id: string
  saga_type: string
  def_version: number
  business_key: string
  subject: string | null
  user_id: string | null
  tenant_id: string | null
  status: SagaStatus
  direction: Direction
  current_step: string
  step_index: number
  undo_index: number | null
  attempt: number
  retry_count: number
  state: Record<string, unknown>
  error_message: string | null
  error_code: string | null
  reply: AskOutcome | null
  fence: number
  version: number
  deaths: number
  traceparent: string | null
  created_at: Date
  updated_at: Date
  started_at: Date | null
  ended_at: Date | null
  timeout_at: Date
  remaining_ms: number
  reply_due_in_ms: number | null
}

/** The columns that `readRow` needs, of a table or alias `s`. */
export const ROW_COLUMNS: RawBuilder<RawRow> = sql`
  s.saga_id, s.saga_type, s.def_version, s.business_key, s.subject, s.user_id, s.tenant_id, s.status,
  s.direction, s.current_step, s.step_index, s.undo_index, s.attempt, s.retry_count, s.state,
  s.error_message, s.error_code, s.reply, s.fence, s.version, s.deaths, s.traceparent,
  s.created_at, s.updated_at, s.started_at, s.ended_at, s.timeout_at,
  (extract(epoch from s.timeout_at - app_now()) * 1000)::float8 as remaining_ms,
  (extract(epoch from s.step_deadline - app_now()) * 1000)::float8 as reply_due_in_ms`

export type { RawRow }

export function readRow(raw: RawRow): SagaRow {
  return {
    sagaId: raw.saga_id,
    type: raw.saga_type,
    defVersion: raw.def_version,
    businessKey: raw.business_key,
    subject: raw.subject,
    userId: raw.user_id,
    tenantId: raw.tenant_id,
    status: raw.status,
    direction: raw.direction,
    currentStep: raw.current_step,
    stepIndex: raw.step_index,
    undoIndex: raw.undo_index,
    attempt: raw.attempt,
    retryCount: raw.retry_count,
    state: raw.state,
    errorMessage: raw.error_message,
    errorCode: raw.error_code,
    reply: raw.reply,
    fence: raw.fence,
    version: raw.version,
    deaths: raw.deaths,
    traceparent: raw.traceparent,
    createdAt: raw.created_at,
    updatedAt: raw.updated_at,
    startedAt: raw.started_at,
    endedAt: raw.ended_at,
    timeoutAt: raw.timeout_at,
    remainingMs: raw.remaining_ms,
    replyDueInMs: raw.reply_due_in_ms,
  }
}

/** What a failed reply says, as a failure of the step. */
export function failureOfReply(error: Extract<AskOutcome, { ok: false }>['error']): Failure {
  return { message: error.message, code: error.code ?? 'error', retryable: error.retryable ?? true }
}
