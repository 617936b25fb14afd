import type { SagaView as ContractView } from '@cloudphone/contracts/api/platform-api'
import { type QueryExecutorProvider, sql } from 'kysely'
import type { Direction, SagaDefinition, SagaStatus } from './definition.ts'
import { type RawRow, ROW_COLUMNS, readRow, type SagaRow } from './row.ts'
import type { SagaProgress } from './waiting.ts'

/** A saga as the API shows it, and what the service needs to know of it besides. */
export interface SagaView extends ContractView {
  readonly tenantId: string | null
  readonly errorCode: string | null
  /** Rises with every change. */
  readonly version: number
}

/** What became of a saga. */
export interface SagaOutcome {
  readonly sagaId: string
  readonly status: SagaStatus
  /** The input and what the steps returned, merged. */
  readonly state: Readonly<Record<string, unknown>>
  readonly errorMessage: string | null
  readonly errorCode: string | null
}

export interface SagaQuery {
  readonly status?: SagaStatus | undefined
  readonly type?: string | undefined
  readonly userId?: string | undefined
  /** Those of this tenant, and those of no tenant. */
  readonly tenantId?: string | undefined
  readonly subject?: string | undefined
  /** Only those that need somebody: halted, or so long past their deadline without having ended. */
  readonly stuckAfterMs?: number | undefined
  readonly limit: number
  /** The last saga of the page before: its `createdAt` as it was shown, and its id. */
  readonly after?: { readonly createdAt: string; readonly sagaId: string } | undefined
}

export interface OverdueSaga {
  readonly sagaId: string
  readonly type: string
  readonly status: SagaStatus
  readonly overdueMs: number
}

type Definitions = ReadonlyMap<string, SagaDefinition<never, never>>
type StepStatus = ContractView['steps'][number]['status']

interface LogRow {
  saga_id: string
  step: string
  direction: Direction
  attempt: number
  status: string
  error: string | null
  actor: string | null
  started_at: Date
  ended_at: Date
}

/** The key of a definition in maps and SQL. */
export function definitionKey(type: string, version: number): string {
  return `${type}:${version}`
}

/** One saga with its timeline; undefined when there is none. */
export async function readView(
  db: QueryExecutorProvider,
  definitions: Definitions,
  sagaId: string,
): Promise<SagaView | undefined> {
  const { rows } = await sql<RawRow>`
    select ${ROW_COLUMNS} from saga_state s where s.saga_id = ${sagaId}`.execute(db)
  return (await viewsOf(db, definitions, rows.map(readRow)))[0]
}

/** How far a saga has come; undefined when there is no such saga. */
export async function readProgress(
  db: QueryExecutorProvider,
  sagaId: string,
): Promise<SagaProgress | undefined> {
  const { rows } = await sql<{ version: number; updated_at: Date; has_ended: boolean }>`
    select version, updated_at, ended_at is not null as has_ended from saga_state
    where saga_id = ${sagaId}`.execute(db)
  const row = rows[0]
  return row && { version: row.version, updatedAt: row.updated_at.toISOString(), hasEnded: row.has_ended }
}

/** What became of a saga, without its timeline. */
export async function readOutcome(
  db: QueryExecutorProvider,
  sagaId: string,
): Promise<SagaOutcome | undefined> {
  const { rows } = await sql<RawRow>`
    select ${ROW_COLUMNS} from saga_state s where s.saga_id = ${sagaId}`.execute(db)
  return rows[0] && outcomeOf(readRow(rows[0]))
}

export function outcomeOf({ sagaId, status, state, errorMessage, errorCode }: SagaRow): SagaOutcome {
  return { sagaId, status, state, errorMessage, errorCode }
}

/** A page of sagas, newest first, by keyset: `after` is the last of the page before. */
export async function readPage(
  db: QueryExecutorProvider,
  definitions: Definitions,
  { status, type, userId, tenantId, subject, stuckAfterMs, limit, after }: SagaQuery,
): Promise<SagaView[]> {
  const conditions = [
    status !== undefined && sql`s.status = ${status}`,
    type !== undefined && sql`s.saga_type = ${type}`,
    userId !== undefined && sql`s.user_id = ${userId}`,
    tenantId !== undefined && sql`(s.tenant_id is null or s.tenant_id = ${tenantId})`,
    subject !== undefined && sql`s.subject = ${subject}`,
    stuckAfterMs !== undefined &&
      sql`(s.status in ('COMPENSATION_STUCK', 'QUARANTINED') or s.status in ('RUNNING', 'COMPENSATING')
        and s.timeout_at < app_now() - ${stuckAfterMs} * interval '1 millisecond')`,
    after !== undefined &&
      sql`(s.created_at, s.saga_id) < (${after.createdAt}::timestamptz, ${after.sagaId})`,
  ].filter((condition) => condition !== false)
  const where = conditions.length === 0 ? sql`true` : sql.join(conditions, sql` and `)
  const { rows } = await sql<RawRow>`
    select ${ROW_COLUMNS} from saga_state s where ${where}
    order by s.created_at desc, s.saga_id desc limit ${limit}`.execute(db)
  return viewsOf(db, definitions, rows.map(readRow))
}

/** How many sagas have each status. */
export async function countByStatus(db: QueryExecutorProvider): Promise<Map<SagaStatus, number>> {
  const { rows } = await sql<{ status: SagaStatus; count: number }>`
    select status, count(*) as count from saga_state group by status`.execute(db)
  return new Map(rows.map(({ status, count }) => [status, count]))
}

/** How many live sagas have each status: what a scrape asks for, whatever the number of finished ones. */
export async function countLive(db: QueryExecutorProvider): Promise<Map<SagaStatus, number>> {
  const { rows } = await sql<{ status: SagaStatus; count: number }>`
    select status, count(*) as count from saga_state
    where status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED')
    group by status`.execute(db)
  return new Map(rows.map(({ status, count }) => [status, count]))
}

/**
 * Sagas that should have ended `graceMs` ago and neither have nor stand visibly stuck: the culprits of invariant 8.
 * Past the point of no return a saga may be late; it is listed too, since somebody should know.
 */
export async function readOverdue(
  db: QueryExecutorProvider,
  { graceMs, limit }: { graceMs: number; limit: number },
): Promise<OverdueSaga[]> {
  const { rows } = await sql<{ saga_id: string; saga_type: string; status: SagaStatus; overdue_ms: number }>`
    select saga_id, saga_type, status, (extract(epoch from app_now() - timeout_at) * 1000)::float8 as overdue_ms
    from saga_state
    where status in ('RUNNING', 'COMPENSATING')
      and timeout_at < app_now() - ${graceMs} * interval '1 millisecond'
    order by timeout_at limit ${limit}`.execute(db)
  return rows.map((row) => ({
    sagaId: row.saga_id,
    type: row.saga_type,
    status: row.status,
    overdueMs: Math.round(row.overdue_ms),
  }))
}

async function viewsOf(
  db: QueryExecutorProvider,
  definitions: Definitions,
  rows: readonly SagaRow[],
): Promise<SagaView[]> {
  if (rows.length === 0) return []
  const { rows: log } = await sql<LogRow>`
    select saga_id, step, direction, attempt, status, error, actor, started_at, ended_at from saga_step_log
    where saga_id = any(${rows.map(({ sagaId }) => sagaId)}::text[]) order by saga_id, id`.execute(db)
  const bySaga = Map.groupBy(log, ({ saga_id }) => saga_id)
  return rows.map((row) => viewOf(row, definitions, bySaga.get(row.sagaId) ?? []))
}

function viewOf(row: SagaRow, definitions: Definitions, log: readonly LogRow[]): SagaView {
  // An instance of another release may not know the definition: it shows the row without the steps.
  const definition = definitions.get(definitionKey(row.type, row.defVersion))
  return {
    sagaId: row.sagaId,
    type: row.type,
    definitionVersion: row.defVersion,
    status: row.status,
    currentStep: row.currentStep,
    stepIndex: row.stepIndex,
    standsAt: standsAt(row, definition),
    retryCount: row.retryCount,
    errorMessage: row.errorMessage,
    errorCode: row.errorCode,
    subject: row.subject,
    userId: row.userId,
    tenantId: row.tenantId,
    version: row.version,
    steps: (definition?.steps ?? []).map((step, index) => ({
      name: step.name,
      kind: step.kind,
      status: stepStatus(row, log, { index, name: step.name, undoable: step.undo !== undefined }),
    })),
    timeline: log.map((entry) => ({
      step: entry.step,
      direction: entry.direction,
      attempt: entry.attempt,
      status: entry.status,
      error: entry.error,
      actor: entry.actor,
      startedAt: entry.started_at.toISOString(),
      endedAt: entry.ended_at.toISOString(),
    })),
    createdAt: row.createdAt.toISOString(),
    updatedAt: row.updatedAt.toISOString(),
    endedAt: row.endedAt?.toISOString() ?? null,
    deadlineAt: row.timeoutAt.toISOString(),
  }
}

/** The step that is being done or undone. */
function standsAt(row: SagaRow, definition: SagaDefinition<never, never> | undefined): string | null {
  const { undoIndex, stepIndex } = row
  const index = undoIndex === null || undoIndex < 0 ? stepIndex : undoIndex
  return row.endedAt === null ? (definition?.steps[index]?.name ?? null) : null
}

function stepStatus(
  row: SagaRow,
  log: readonly LogRow[],
  { index, name, undoable }: { index: number; name: string; undoable: boolean },
): StepStatus {
  const wasSkipped = (direction: Direction): boolean =>
    log.some((entry) => entry.step === name && entry.direction === direction && entry.status === 'skipped')
  if (index > row.stepIndex) return 'pending'
  if (row.direction === 'do') {
    if (index < row.stepIndex || row.status === 'COMPLETED') return wasSkipped('do') ? 'skipped' : 'done'
    return row.status === 'QUARANTINED' ? 'failed' : 'running'
  }
  if (index === row.undoIndex) {
    return row.status === 'COMPENSATING' ? 'running' : 'failed'
  }
  if (index === row.stepIndex) return 'failed'
  if (index < (row.undoIndex ?? -1)) return 'done'
  if (!undoable) return 'done'
  return wasSkipped('undo') ? 'skipped' : 'undone'
}
