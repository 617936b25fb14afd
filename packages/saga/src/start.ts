import { createHash } from 'node:crypto'
import type { AnyTx } from '@cloudphone/db/database'
import { sql } from 'kysely'
import type { SagaDefinition } from './definition.ts'
import { OperationInProgress, SagaKeyReused } from './errors.ts'
import type { SagaRow } from './row.ts'

export interface StartSaga<Input, Transaction> {
  readonly definition: SagaDefinition<Input, Transaction>
  /** `<type>-<uuid>`; minted when absent. */
  readonly sagaId?: string | undefined
  /** The request's id: starting the same request again returns the first saga. Never empty. */
  readonly businessKey: string
  /** What it is about, such as a device's id: at most one live saga per subject, of whatever type. */
  readonly subject?: string | undefined
  readonly userId?: string | undefined
  readonly tenantId?: string | undefined
  readonly input: Input
}

export interface StartedSaga {
  readonly sagaId: string
  /** False when the business key had already started it. */
  readonly created: boolean
}

/** Who takes a saga into its hands from its first moment. */
export interface Hold {
  readonly executorId: string
  readonly leaseTtlMs: number
}

export interface Inserted extends StartedSaga {
  /** The new row, claimed under `hold`; absent when nothing was inserted or nobody holds it. */
  readonly row?: SagaRow
}

/** Of a live one that ends between our look and our insert; more than a few would mean something else. */
const MAX_LOOKS = 5

/**
 * Inserts a saga in the caller's transaction, or finds the one that the same request has started. With `hold` it is
 * claimed by its very insert: whoever starts it need not look for it. If that process dies before the commit's answer,
 * its lease is void as any other's.
 */
export async function insertSaga<Input, Transaction>(
  tx: AnyTx,
  saga: StartSaga<Input, Transaction>,
  {
    newId,
    traceparent,
    hold,
  }: { newId: () => string; traceparent: string | undefined; hold?: Hold | undefined },
): Promise<Inserted> {
  const { definition, businessKey, subject, userId, tenantId, input, sagaId } = saga
  if (businessKey === '') throw new RangeError(`Saga ${definition.type}: businessKey is empty`)
  if (subject === '') throw new RangeError(`Saga ${definition.type}: subject is empty`)
  const id = sagaId ?? `${definition.type}-${newId()}`
  const state = JSON.stringify(input)
  const hash = hashOf(input)
  const firstStep = definition.steps[0]?.name ?? ''
  for (let look = 0; look < MAX_LOOKS; look += 1) {
    const { rows } = await sql<Born>`
      select * from saga_start(${id}, ${definition.type}, ${definition.version}, ${businessKey}, ${hash},
        ${subject ?? null}, ${userId ?? null}, ${tenantId ?? null}, ${firstStep}, ${state}::jsonb,
        ${definition.timeoutMs}, ${traceparent ?? null}, ${hold?.executorId ?? null}, ${hold?.leaseTtlMs ?? null})`.execute(
      tx,
    )
    const [born] = rows
    if (born !== undefined) {
      if (hold === undefined) return { sagaId: id, created: true }
      return { sagaId: id, created: true, row: firstRow(id, { saga, firstStep, state, traceparent, born }) }
    }
    const found = await findRival(tx, { type: definition.type, businessKey, subject, id })
    if (found === undefined) continue
    if (found.business_key !== businessKey || found.saga_type !== definition.type) {
      if (found.saga_id === id) throw new SagaKeyReused(definition.type, businessKey, id)
      throw new OperationInProgress(subject ?? id, found.saga_id)
    }
    if (found.input_hash !== hash) throw new SagaKeyReused(definition.type, businessKey, found.saga_id)
    return { sagaId: found.saga_id, created: false }
  }
  throw new Error(`Saga ${id} could not be started: its rivals came and went ${MAX_LOOKS} times`)
}

interface Born {
  created_at: Date
  updated_at: Date
  started_at: Date
  timeout_at: Date
}

/** A claimed saga that has just been inserted, as a claim would have read it. */
function firstRow<Input, Transaction>(
  sagaId: string,
  {
    saga: { definition, businessKey, subject, userId, tenantId },
    firstStep,
    state,
    traceparent,
    born,
  }: {
    saga: StartSaga<Input, Transaction>
    firstStep: string
    state: string
    traceparent: string | undefined
    born: Born
  },
): SagaRow {
  return {
    sagaId,
    type: definition.type,
    defVersion: definition.version,
    businessKey,
    subject: subject ?? null,
    userId: userId ?? null,
    tenantId: tenantId ?? null,
    status: 'RUNNING',
    direction: 'do',
    currentStep: firstStep,
    stepIndex: 0,
    undoIndex: null,
    attempt: 0,
    retryCount: 0,
    // Through JSON, so that the steps see what they would see after a crash.
    state: JSON.parse(state),
    errorMessage: null,
    errorCode: null,
    reply: null,
    fence: 1,
    version: 1,
    deaths: 0,
    traceparent: traceparent ?? null,
    createdAt: born.created_at,
    updatedAt: born.updated_at,
    startedAt: born.started_at,
    endedAt: null,
    timeoutAt: born.timeout_at,
    remainingMs: definition.timeoutMs,
    replyDueInMs: null,
  }
}

interface Rival {
  saga_id: string
  saga_type: string
  business_key: string
  input_hash: string
}

/** What stood in the way of an insert: the same request first, then the subject's live saga. */
async function findRival(
  tx: AnyTx,
  {
    type,
    businessKey,
    subject,
    id,
  }: { type: string; businessKey: string; subject: string | undefined; id: string },
): Promise<Rival | undefined> {
  const { rows } = await sql<Rival>`
    select saga_id, saga_type, business_key, input_hash from saga_state
    where (saga_type = ${type} and business_key = ${businessKey}) or saga_id = ${id}
      or (subject = ${subject ?? null}
        and status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK', 'QUARANTINED'))
    order by saga_type = ${type} and business_key = ${businessKey} desc
    limit 1`.execute(tx)
  return rows[0]
}

/** SHA-256 of the input as JSON with sorted keys: two spellings of one request are one request. */
function hashOf(input: unknown): string {
  const sorted = JSON.stringify(input, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
      : value,
  )
  return createHash('sha256').update(sorted).digest('hex')
}
