/* Where sagas are kept, as the engine sees it. PostgreSQL stands behind it (postgres-store.ts); the simulation puts a
 * model of it there, held to the same contract (store.contract.ts). */
import type { Checkpoint } from './checkpoint.ts'
import type { SagaRow } from './row.ts'

export interface ClaimOptions {
  readonly executorId: string
  /** Ids under which this very process claimed before: when their connections broke, nobody died. */
  readonly formerIds: readonly string[]
  /** `type:version` of each definition that this process has. */
  readonly known: readonly string[]
  readonly limit: number
  /** Room for sagas that are under suspicion of killing their executor: 0 or 1. */
  readonly suspects: number
  readonly leaseTtlMs: number
}

/** Every method throws `DatabaseUnavailable` when the store cannot be reached; a write may then have happened or not. */
export interface SagaStore<Transaction> {
  /** Claims due sagas that nobody holds, oldest due time first: the quick way, for wake-ups. */
  claimFree(options: ClaimOptions): Promise<SagaRow[]>
  /** Claims those, and those whose holder let its lease run out or is gone. */
  claimAny(options: ClaimOptions): Promise<SagaRow[]>
  /** Milliseconds until the next saga that nobody holds is due; null when there is none. */
  nextDueInMs(known: readonly string[]): Promise<number | null>
  /** Renews leases; gives the fences that are still the executor's. Rows locked by a checkpoint are left to it. */
  renew(leases: {
    executorId: string
    sagaIds: readonly string[]
    leaseTtlMs: number
  }): Promise<ReadonlyMap<string, number>>
  /** Takes back the deaths that others have counted under these ids: only their sessions were lost. */
  forgive(executorIds: readonly string[]): Promise<void>
  /** Gives a lease back, to be claimed by anyone after `delayMs`. Nothing happens when the fence is no longer current. */
  giveBack(lease: { sagaId: string; fence: number; delayMs: number }): Promise<void>
  /** The saga as it stands, if this fence still holds it: after a write whose fate is unknown or was refused. */
  readHeld(lease: { sagaId: string; fence: number; executorId: string }): Promise<SagaRow | undefined>
  /**
   * Writes where a saga goes: durable when this resolves. It may share its commit with the checkpoints of others.
   * Undefined when the row is not the one that was read (fence or version have moved on): nothing was written.
   */
  checkpoint(point: Checkpoint): Promise<SagaRow | undefined>
  /** As `checkpoint`, in the transaction of the effect; after undefined the transaction must roll back. */
  checkpointIn(tx: Transaction, point: Checkpoint): Promise<SagaRow | undefined>
  /** Commits what `work` did when it resolves. `work` may run again after a conflict. */
  transaction<Result>(work: (tx: Transaction) => Promise<Result>): Promise<Result>
}
