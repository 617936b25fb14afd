/* Terminology:
 * - saga: a chain of steps that ends COMPLETED, or COMPENSATED with every effect undone
 * - local step: runs inside the checkpoint's transaction, so exactly once
 * - call step: an outside effect (Docker, HTTP); at least once, under a stable idempotency key
 * - ask step: a command by event and its reply, with a deadline
 * - state: the input and what the steps returned, merged; kept as JSON
 * - intent: the record that a step may have begun; whatever has an intent is undone
 * - checkpoint: the one transaction that records a step's result and moves the saga on
 * - point of no return: from the step after it on, the saga only goes forward
 */
import type { EventDefinition } from '@cloudphone/contracts/event'
import type { AnyTx } from '@cloudphone/db/database'
import type { EventFacts } from '@cloudphone/outbox/outbox'

/** What a step knows beside the state. */
export interface StepContext {
  readonly sagaId: string
  readonly userId: string | null
  readonly tenantId: string | null
  /** 1 for the first try of this step in this direction. */
  readonly attempt: number
}

export interface CallContext extends StepContext {
  /** `sagaId:STEP` (`sagaId:STEP:undo` for an undo): the same on every retry and after every crash. */
  readonly key: string
  /** Rises with each change of executor: pass it to effects that can refuse a stale one. */
  readonly fence: number
  /** Fires at the try's or the saga's deadline, when the lease is lost and when the process stops. */
  readonly signal: AbortSignal
}

/** What made the saga turn back. */
export interface TurnedBack extends StepContext {
  readonly error: string
  readonly errorCode: string
  /** The step that failed, or was due when the saga's time ran out. */
  readonly failedStep: string
}

export interface RetryPolicy {
  /** Waits before the retries, in ms. Default 1000, 2000, 4000; for an ask none, since the bus retries. */
  readonly delaysMs?: readonly number[]
  /** A try of a call takes at most so long. Default 30,000 ms. */
  readonly timeoutMs?: number
}

/*
 * The `never` stands for "the state of this place in the chain": the builder checks each function against its
 * own state, and the engine, which only has JSON from the database, hands it over as `never`.
 */
export interface LocalStep<Transaction = AnyTx> {
  readonly kind: 'local'
  readonly name: string
  readonly run: (tx: Transaction, state: never, context: StepContext) => Promise<unknown>
  readonly undo?: (tx: Transaction, state: never, context: StepContext) => Promise<void>
  readonly retry: RetryPolicy
}

export interface CallStep<Transaction = AnyTx> {
  readonly kind: 'call'
  readonly name: string
  readonly run: (state: never, context: CallContext) => Promise<unknown>
  /** Runs in the checkpoint's transaction after `run` succeeded: rows and events that belong to the effect. */
  readonly record?: (tx: Transaction, state: never, context: StepContext) => Promise<void>
  /** Must work when nobody knows whether `run` happened ("ensure absent"). */
  readonly undo?: (state: never, context: CallContext) => Promise<void>
  /** Runs in the transaction that records the undo. */
  readonly recordUndo?: (tx: Transaction, state: never, context: StepContext) => Promise<void>
  readonly retry: RetryPolicy
}

export interface AskStep<Transaction = AnyTx> {
  readonly kind: 'ask'
  readonly name: string
  readonly command: EventDefinition
  /** Makes the command's facts, in the transaction that also writes it to the outbox. */
  readonly facts: (
    tx: Transaction,
    state: never,
    context: StepContext,
  ) => Promise<EventFacts<EventDefinition>>
  /** How long the reply may take. */
  readonly withinMs: number
  /** Must refuse a late command (a tombstone): after a timeout it may still arrive. */
  readonly undo?: (tx: Transaction, state: never, context: StepContext) => Promise<void>
  readonly retry: RetryPolicy
}

export type Step<Transaction = AnyTx> = LocalStep<Transaction> | CallStep<Transaction> | AskStep<Transaction>

/** A definition is data: persisted by type and version, never by code. Made by `saga(...)...end()`. */
export interface SagaDefinition<Input = never, Transaction = AnyTx> {
  readonly type: string
  readonly version: number
  /** From start to the flip into compensation; by the database's clock. */
  readonly timeoutMs: number
  readonly steps: readonly Step<Transaction>[]
  /** Index of the first step after the point of no return; the number of steps when there is none. */
  readonly pointOfNoReturn: number
  /** In the transaction of the last checkpoint. */
  readonly onCompleted?: (tx: Transaction, state: never, context: StepContext) => Promise<void>
  /** In the transaction that ends the compensation. Sees the input only: the rest may never have been. */
  readonly onCompensated?: (tx: Transaction, state: never, context: TurnedBack) => Promise<void>
  /** Only in the types: what `start` takes. */
  readonly input?: (input: Input) => void
}

export type SagaStatus =
  | 'RUNNING'
  | 'COMPENSATING'
  | 'COMPLETED'
  | 'COMPENSATED'
  | 'COMPENSATION_STUCK'
  | 'QUARANTINED'

export type Direction = 'do' | 'undo'

/** What can be drawn of a definition. */
export interface SagaDrawing {
  readonly type: string
  readonly version: number
  readonly timeoutMs: number
  readonly pointOfNoReturn: number | null
  readonly steps: readonly {
    readonly name: string
    readonly kind: Step['kind']
    readonly hasUndo: boolean
  }[]
}

/** The definition as data for the console and the documents. */
export function describe(definition: SagaDefinition<never, never>): SagaDrawing {
  return {
    type: definition.type,
    version: definition.version,
    timeoutMs: definition.timeoutMs,
    pointOfNoReturn: definition.pointOfNoReturn < definition.steps.length ? definition.pointOfNoReturn : null,
    steps: definition.steps.map(({ name, kind, undo }) => ({ name, kind, hasUndo: undo !== undefined })),
  }
}
