/* Terminology:
 * - saga: a chain of steps that ends COMPLETED, or COMPENSATED with every effect undone
 * - local step: runs inside the checkpoint's transaction, so exactly once
 * - call step: an outside effect (Docker, HTTP); at least once, under a stable idempotency key
 * - ask step: a command by event and its reply, with a deadline
 * - intent: the record that a step may have begun; whatever has an intent is undone
 * - checkpoint: the one transaction that records a step's result and moves the saga on
 */
import type { EventDefinition, PayloadOf } from '@cloudphone/contracts/event'
import type { AnyTx } from '@cloudphone/db/database'

/** Everything a step may know. `state` is the input and what earlier steps returned, merged. */
export interface StepContext<State> {
  readonly sagaId: string
  readonly state: State
  /** 1 for the first try of this step in this direction. */
  readonly attempt: number
}

export interface CallContext<State> extends StepContext<State> {
  /** `sagaId:STEP` (`sagaId:STEP:undo` for an undo): the same on every retry and after every crash. */
  readonly key: string
  /** Rises with each change of executor: pass it to effects that can refuse a stale one. */
  readonly fence: number
  /** Fires at the step's or the saga's deadline and when the lease is lost. */
  readonly signal: AbortSignal
}

export type StepResult = Record<string, unknown> | undefined

export interface RetryPolicy {
  /** Waits before the retries, in ms. Default [1000, 2000, 4000]. */
  readonly delaysMs?: readonly number[]
  /** A try takes at most so long. Default 30,000 ms. */
  readonly timeoutMs?: number
}

export interface LocalStep {
  readonly kind: 'local'
  readonly name: string
  readonly run: (tx: AnyTx, context: StepContext<never>) => Promise<StepResult>
  readonly undo?: (tx: AnyTx, context: StepContext<never>) => Promise<void>
  readonly retry: RetryPolicy
}

export interface CallStep {
  readonly kind: 'call'
  readonly name: string
  readonly run: (context: CallContext<never>) => Promise<StepResult>
  /** Runs in the checkpoint's transaction after `run` succeeded: rows and events that belong to the effect. */
  readonly record?: (tx: AnyTx, context: StepContext<never>) => Promise<void>
  /** Must work when nobody knows whether `run` happened ("ensure absent"). */
  readonly undo?: (context: CallContext<never>) => Promise<void>
  /** Runs in the transaction that records the undo. */
  readonly recordUndo?: (tx: AnyTx, context: StepContext<never>) => Promise<void>
  readonly retry: RetryPolicy
}

export interface AskStep {
  readonly kind: 'ask'
  readonly name: string
  readonly command: EventDefinition
  readonly payload: (context: StepContext<never>) => PayloadOf<EventDefinition>
  readonly withinMs: number
  readonly undo?: (tx: AnyTx, context: StepContext<never>) => Promise<void>
}

export type Step = LocalStep | CallStep | AskStep

/** A definition is data: persisted by type and version, never by code. */
export interface SagaDefinition {
  readonly type: string
  readonly version: number
  /** From start to the flip into compensation; by the database's clock. */
  readonly timeoutMs: number
  readonly steps: readonly Step[]
  /** Index of the first step after the point of no return: from there on the saga only goes forward. */
  readonly pointOfNoReturn: number
  /** In the transaction of the last checkpoint. */
  readonly onCompleted?: (tx: AnyTx, context: StepContext<never>) => Promise<void>
  /** In the transaction that ends the compensation; `error` is what made the saga turn back. */
  readonly onCompensated?: (
    tx: AnyTx,
    context: StepContext<never> & { readonly error: string },
  ) => Promise<void>
}

export type SagaStatus =
  | 'RUNNING'
  | 'COMPENSATING'
  | 'COMPLETED'
  | 'COMPENSATED'
  | 'COMPENSATION_STUCK'
  | 'QUARANTINED'

/** Thrown by a step to skip the retries: an invalid request, bad credentials, an exceeded quota. */
export class PermanentError extends Error {
  readonly code: string
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'PermanentError'
    this.code = code
  }
}
