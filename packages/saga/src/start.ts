import { createHash } from 'node:crypto'
import { type QueryExecutorProvider, sql } from 'kysely'
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

/** A saga that is to be inserted. */
export interface Seed {
  readonly saga: Omit<StartSaga<unknown, never>, 'definition'> & {
    readonly definition: Pick<SagaDefinition<never, never>, 'type' | 'version' | 'timeoutMs'>
  }
  readonly sagaId: string
  readonly firstStep: string
  readonly inputHash: string
  readonly traceparent: string | undefined
  readonly hold: Hold | undefined
}

/** What the database says of a row that it has inserted. */
export interface Born {
  created_at: Date
  updated_at: Date
  started_at: Date
  timeout_at: Date
}

/** Of a live one that ends between our look and our insert; more than a few would mean something else. */
const MAX_LOOKS = 5

/**
 * Inserts a saga, or finds the one that the same request has started. With `hold` it is claimed by its very insert:
 * whoever starts it need not look for it. If that process dies before the commit's answer, its lease is void as any
 * other's. `write` inserts, alone or with others; `db` is asked what stood in the way when it did not.
 */
export async function insertSaga<Input, Transaction>(
  db: QueryExecutorProvider,
  saga: StartSaga<Input, Transaction>,
  {
    newId,
    write,
    ...options
  }: Pick<Seed, 'traceparent' | 'hold'> & {
    newId: () => string
    write: (seed: Seed) => Promise<Born | undefined>
  },
): Promise<Inserted> {
  const { definition, businessKey, subject, input } = saga
  if (businessKey === '') throw new RangeError(`Saga ${definition.type}: businessKey is empty`)
  if (subject === '') throw new RangeError(`Saga ${definition.type}: subject is empty`)
  const sagaId = saga.sagaId ?? `${definition.type}-${newId()}`
  const inputHash = hashOf(input)
  const firstStep = definition.steps[0]?.name ?? ''
  const seed: Seed = { saga, sagaId, firstStep, inputHash, ...options }
  for (let look = 0; look < MAX_LOOKS; look += 1) {
    const born = await write(seed)
    if (born !== undefined) {
      return { sagaId, created: true, ...(options.hold === undefined ? {} : { row: firstRow(seed, born) }) }
    }
    const found = await findRival(db, { type: definition.type, businessKey, subject, id: sagaId })
    if (found === undefined) continue
    if (found.business_key !== businessKey || found.saga_type !== definition.type) {
      if (found.saga_id === sagaId) throw new SagaKeyReused(definition.type, businessKey, sagaId)
      throw new OperationInProgress(subject ?? sagaId, found.saga_id)
    }
    if (found.input_hash !== inputHash) throw new SagaKeyReused(definition.type, businessKey, found.saga_id)
    return { sagaId: found.saga_id, created: false }
  }
  throw new Error(`Saga ${sagaId} could not be started: its rivals came and went ${MAX_LOOKS} times`)
}

/** Inserts sagas in one statement. An answer for each, in their order: undefined when something stood in the way. */
export async function writeSeeds(
  db: QueryExecutorProvider,
  seeds: readonly Seed[],
): Promise<(Born | undefined)[]> {
  const sagas = JSON.stringify(
    // A column that is left out is null.
    seeds.map(({ saga: { definition, ...saga }, sagaId, firstStep, inputHash, traceparent, hold }) => ({
      saga_id: sagaId,
      saga_type: definition.type,
      def_version: definition.version,
      business_key: saga.businessKey,
      input_hash: inputHash,
      subject: saga.subject,
      user_id: saga.userId,
      tenant_id: saga.tenantId,
      first_step: firstStep,
      input: saga.input,
      timeout_ms: definition.timeoutMs,
      traceparent,
      executor: hold?.executorId,
      lease_ttl_ms: hold?.leaseTtlMs,
    })),
  )
  const { rows } = await sql<Born & { saga_id: string }>`
    select * from saga_start(${sagas}::jsonb)`.execute(db)
  const born = new Map(rows.map((row) => [row.saga_id, row]))
  return seeds.map(({ sagaId }) => {
    const row = born.get(sagaId)
    // The same id twice in one batch is one saga: the second is told to look.
    born.delete(sagaId)
    return row
  })
}

/** A claimed saga that has just been inserted, as a claim would have read it. */
function firstRow({ saga, sagaId, firstStep, traceparent }: Seed, born: Born): SagaRow {
  const { definition, businessKey, subject, userId, tenantId, input } = saga
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
    state: JSON.parse(JSON.stringify(input)),
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
  db: QueryExecutorProvider,
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
    limit 1`.execute(db)
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
