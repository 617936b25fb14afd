import { expect } from 'vitest'
import type { Checkpoint } from '../checkpoint.ts'
import { decide, type Outcome, type Plan } from '../decide.ts'
import type { ReplyFate } from '../operate.ts'
import type { AskOutcome, SagaRow } from '../row.ts'
import type { ClaimOptions, SagaStore } from '../store.ts'

/** The saga of the contract: two steps, the second under a point of no return only where a test says so. */
export const CONTRACT_SAGA = {
  type: 'contract',
  version: 1,
  steps: ['FIRST', 'SECOND'],
  timeoutMs: 60_000,
} as const

/** What stands in a store, by other means than the port. */
export interface StoredSaga {
  readonly status: string
  readonly fence: number
  readonly version: number
  readonly deaths: number
  readonly leaseOwner: string | null
  readonly state: Record<string, unknown>
  /** From now on, by the clock of deadlines; negative when it has passed. */
  readonly nextRunInMs: number
}

export interface StoredEntry {
  readonly step: string
  readonly direction: string
  readonly attempt: number
  readonly status: string
  readonly error: string | null
  readonly executor: string | null
  readonly fence: number
}

/** A store with what a test needs beside the port. */
export interface StoreHarness<Transaction> extends AsyncDisposable {
  readonly store: SagaStore<Transaction>
  /** Starts a saga of `CONTRACT_SAGA`, due now, with an empty input. */
  start(): Promise<string>
  reply(sagaId: string, step: string, outcome: AskOutcome): Promise<ReplyFate>
  /** A process that lives until `die`. */
  openExecutor(): Promise<{ readonly id: string; die(): Promise<void> }>
  /** Moves the clock of deadlines, not that of leases. */
  advance(ms: number): Promise<void>
  read(sagaId: string): Promise<StoredSaga>
  log(sagaId: string): Promise<StoredEntry[]>
  /** An effect of a step in its transaction, and what is there of all. */
  put(tx: Transaction, key: string): Promise<void>
  things(): Promise<string[]>
}

export const LEASE_MS = 60_000
const plan: Plan = {
  steps: CONTRACT_SAGA.steps.map((name) => ({ name, undoable: true, delaysMs: [2_000, 90_000] })),
  pointOfNoReturn: CONTRACT_SAGA.steps.length,
}
export const done: Outcome = { kind: 'done', result: { first: 1 } }
export const failed: Outcome = { kind: 'failed', error: { message: 'busy', code: 'error', retryable: true } }

export function claimBy(executorId: string, options: Partial<ClaimOptions> = {}): ClaimOptions {
  const known = [`${CONTRACT_SAGA.type}:${CONTRACT_SAGA.version}`]
  return { executorId, formerIds: [], known, limit: 10, suspects: 1, leaseTtlMs: LEASE_MS, ...options }
}

/** The checkpoint of an outcome, as the engine makes it. */
export function pointOf(row: SagaRow, outcome: Outcome, options: Partial<Checkpoint> = {}): Checkpoint {
  const decision = decide(row, plan, outcome)
  return {
    row,
    decision,
    currentStep: plan.steps[decision.to.stepIndex]?.name ?? '',
    executorId: 'somebody',
    leaseTtlMs: LEASE_MS,
    tookMs: 1,
    release: false,
    ...options,
  }
}

export function only(rows: readonly SagaRow[]): SagaRow {
  expect(rows).toHaveLength(1)
  return rows[0] ?? expect.unreachable('nothing was claimed')
}

export type Open<Transaction> = () => Promise<StoreHarness<Transaction>>

/** A saga that was claimed twice, since the lease of the first had run out: `old` is how the first still sees it. */
export async function superseded<Transaction>(harness: StoreHarness<Transaction>) {
  const { store } = harness
  const sagaId = await harness.start()
  const [zombie, owner] = [await harness.openExecutor(), await harness.openExecutor()]
  const old = only(await store.claimFree(claimBy(zombie.id, { leaseTtlMs: 0 })))
  only(await store.claimAny(claimBy(owner.id)))
  return { sagaId, old, owner }
}
