import type { QueryExecutorProvider } from 'kysely'
import { sql } from 'kysely'
import type { Decision } from './decide.ts'
import type { SagaRow } from './row.ts'

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

interface Written {
  saga_id: string
  fence: number
  version: number
  updated_at: Date
  ended_at: Date | null
  remaining_ms: number
}

/**
 * Writes where sagas go from their rows: position, result, the next step's intent, the lease's renewal and the log entry
 * of all of them in one statement. An answer per checkpoint, in their order: the row as it is now, or undefined when it
 * was not the one that was read (fence or version have moved on). The caller must then not act on its decision, and a
 * transaction around this must roll back.
 */
export async function writeCheckpoints(
  db: QueryExecutorProvider,
  points: readonly Checkpoint[],
): Promise<(SagaRow | undefined)[]> {
  const patches = JSON.stringify(points.map(patchOf))
  const { rows } = await sql<Written>`select * from saga_checkpoint(${patches}::jsonb)`.execute(db)
  const written = new Map(rows.map((row) => [row.saga_id, row]))
  return points.map((point) => {
    const row = written.get(point.row.sagaId)
    // Beside the one that was written there may be one of a run that has lost its lease, or the same once more.
    if (row?.fence !== point.row.fence || row.version !== point.row.version + 1) return undefined
    written.delete(point.row.sagaId)
    return rowAfter(point, row)
  })
}

function rowAfter({ row, decision, currentStep }: Checkpoint, written: Written): SagaRow {
  const { to, next, result } = decision
  return {
    ...row,
    ...to,
    currentStep,
    // As the database merged it: both sides are JSON objects.
    state: result === null ? row.state : { ...row.state, ...result },
    reply: null,
    deaths: 0,
    version: written.version,
    updatedAt: written.updated_at,
    endedAt: written.ended_at,
    remainingMs: written.remaining_ms,
    replyDueInMs: next.kind === 'wait' ? next.replyWithinMs : null,
  }
}

function patchOf({ row, decision, ...point }: Checkpoint): Record<string, unknown> {
  const { to, next, entry } = decision
  const wait = next.kind === 'wait' ? next : undefined
  // A column that is left out is null.
  return {
    saga_id: row.sagaId,
    fence: row.fence,
    version: row.version,
    status: to.status,
    direction: to.direction,
    current_step: point.currentStep,
    step_index: to.stepIndex,
    undo_index: to.undoIndex ?? undefined,
    attempt: to.attempt,
    retry_count: to.retryCount,
    result: decision.result ?? undefined,
    error_message: to.errorMessage ?? undefined,
    error_code: to.errorCode ?? undefined,
    delay_ms: wait?.delayMs,
    until_timeout: wait?.untilTimeout,
    reply_within_ms: wait?.replyWithinMs ?? undefined,
    release: point.release || next.kind !== 'go_on',
    ended: to.status === 'COMPLETED' || to.status === 'COMPENSATED',
    lease_ttl_ms: point.leaseTtlMs,
    executor: point.executorId ?? undefined,
    took_ms: point.tookMs,
    actor: point.actor,
    log_step: entry?.step,
    log_direction: entry?.direction,
    log_attempt: entry?.attempt,
    log_status: entry?.status,
    log_error: entry?.error ?? undefined,
  }
}
