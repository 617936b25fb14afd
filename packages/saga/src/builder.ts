import type { EventDefinition } from '@cloudphone/contracts/event'
import type { AnyTx } from '@cloudphone/db/database'
import type { EventFacts } from '@cloudphone/outbox/outbox'
import type {
  AskStep,
  CallContext,
  CallStep,
  LocalStep,
  RetryPolicy,
  SagaDefinition,
  Step,
  StepContext,
  TurnedBack,
} from './definition.ts'
import { InvalidDefinition } from './errors.ts'

/** What a step returns: an object that survives JSON, merged into the state, or nothing. */
// biome-ignore lint/suspicious/noConfusingVoidType: a step whose body has no return is a Promise<void>
type Returned = object | undefined | void

/** The state after a step that returned `Result`. */
export type Merged<State, Result> = Result extends object
  ? {
      readonly [Key in keyof State | keyof Result]: Key extends keyof Result
        ? Result[Key]
        : Key extends keyof State
          ? State[Key]
          : never
    }
  : State

export interface CallOptions<Tx, State, Result> extends RetryPolicy {
  /** Runs in the checkpoint's transaction: rows and events that belong to the effect. */
  readonly record?: (tx: Tx, state: Merged<State, Awaited<Result>>, context: StepContext) => Promise<void>
}

export interface AskOptions extends RetryPolicy {
  readonly withinMs: number
}

/** The chain after `input`. `Before` is the state that the last step found: all its undo may rely on. */
export interface SagaChain<Input, Tx, State> {
  /** Database effects, exactly once: `run` is part of the checkpoint's transaction. It is not timed. */
  local<Result extends Returned = void>(
    name: string,
    run: (tx: Tx, state: State, context: StepContext) => Promise<Result>,
    retry?: Pick<RetryPolicy, 'delaysMs'>,
  ): TransactionalStep<Input, Tx, State, Result>
  /** An effect of the outside, at least once, under `context.key`. It must heed `context.signal`. */
  call<Result extends Returned = void>(
    name: string,
    run: (state: State, context: CallContext) => Promise<Result>,
    options?: CallOptions<Tx, State, Result>,
  ): CalledStep<Input, Tx, State, Result>
  /** A command by event; what its reply carries becomes part of the state as `Result`. */
  ask<Result extends Returned = void, Definition extends EventDefinition = EventDefinition>(
    name: string,
    command: Definition,
    facts: (tx: Tx, state: State, context: StepContext) => Promise<EventFacts<Definition>>,
    options: AskOptions,
  ): TransactionalStep<Input, Tx, State, Result>
  /** From here on the saga only goes forward: steps are retried for ever, with an alarm, and never undone. */
  pointOfNoReturn(): SagaChain<Input, Tx, State>
  /** In the transaction of the last checkpoint. */
  onCompleted(run: (tx: Tx, state: State, context: StepContext) => Promise<void>): SagaChain<Input, Tx, State>
  /** In the transaction that ends the compensation. Only the input is sure to be known by then. */
  onCompensated(
    run: (tx: Tx, state: Input, context: TurnedBack) => Promise<void>,
  ): SagaChain<Input, Tx, State>
  /** Checks and freezes the definition. Throws `InvalidDefinition`. */
  end(): SagaDefinition<Input, Tx>
}

export interface TransactionalStep<Input, Tx, Before, Result>
  extends SagaChain<Input, Tx, Merged<Before, Result>> {
  /** Takes the step back, in the transaction that records it; must be harmless when the step never was. */
  undo(
    run: (tx: Tx, state: Before, context: StepContext) => Promise<void>,
  ): SagaChain<Input, Tx, Merged<Before, Result>>
}

export interface CalledStep<Input, Tx, Before, Result> extends SagaChain<Input, Tx, Merged<Before, Result>> {
  /** "Ensure absent": works when nobody knows whether the effect happened, so it cannot see its result. */
  undo(
    run: (state: Before, context: CallContext) => Promise<void>,
    options?: { readonly record?: (tx: Tx, state: Before, context: StepContext) => Promise<void> },
  ): SagaChain<Input, Tx, Merged<Before, Result>>
}

/**
 * Begins a definition: `saga('device_creation', 1, { timeoutMs: 600_000 }).input<CreateInput>().local(...)...end()`.
 * The second parameter of `input` names the tables that steps see: `.input<CreateInput, Tx<DevicesSchema>>()`.
 */
export function saga(type: string, version: number, options: { timeoutMs: number }) {
  return {
    input<Input extends object, Tx extends AnyTx = AnyTx>(): SagaChain<Input, Tx, Readonly<Input>> {
      return chain<Input, Tx, Readonly<Input>>({
        type,
        version,
        timeoutMs: options.timeoutMs,
        steps: [],
        pointOfNoReturn: null,
      })
    },
  }
}

interface Draft<Tx> {
  readonly type: string
  readonly version: number
  readonly timeoutMs: number
  readonly steps: readonly Step<Tx>[]
  readonly pointOfNoReturn: number | null
  readonly onCompleted?: NonNullable<SagaDefinition<never, Tx>['onCompleted']>
  readonly onCompensated?: NonNullable<SagaDefinition<never, Tx>['onCompensated']>
}

function chain<Input, Tx, State>(draft: Draft<Tx>): SagaChain<Input, Tx, State> {
  return {
    local<Result extends Returned>(
      name: string,
      run: (tx: Tx, state: State, context: StepContext) => Promise<Result>,
      retry: Pick<RetryPolicy, 'delaysMs'> = {},
    ) {
      return transactional<Input, Tx, State, Result>(draft, { kind: 'local', name, run, retry })
    },
    call<Result extends Returned>(
      name: string,
      run: (state: State, context: CallContext) => Promise<Result>,
      { record, ...retry }: CallOptions<Tx, State, Result> = {},
    ) {
      const step: CallStep<Tx> = { kind: 'call', name, run, retry, ...(record && { record }) }
      return called<Input, Tx, State, Result>(draft, step)
    },
    ask<Result extends Returned, Definition extends EventDefinition>(
      name: string,
      command: Definition,
      facts: (tx: Tx, state: State, context: StepContext) => Promise<EventFacts<Definition>>,
      { withinMs, ...retry }: AskOptions,
    ) {
      return transactional<Input, Tx, State, Result>(draft, {
        kind: 'ask',
        name,
        command,
        facts,
        withinMs,
        retry,
      })
    },
    pointOfNoReturn() {
      if (draft.pointOfNoReturn !== null) throw invalid(draft, 'has two points of no return')
      return chain({ ...draft, pointOfNoReturn: draft.steps.length })
    },
    onCompleted: (onCompleted) => chain({ ...draft, onCompleted }),
    onCompensated: (onCompensated) => chain({ ...draft, onCompensated }),
    end: () => finished<Input, Tx>(draft),
  }
}

function transactional<Input, Tx, Before, Result>(
  draft: Draft<Tx>,
  step: LocalStep<Tx> | AskStep<Tx>,
): TransactionalStep<Input, Tx, Before, Result> {
  type After = Merged<Before, Result>
  return {
    ...chain<Input, Tx, After>({ ...draft, steps: [...draft.steps, step] }),
    undo: (undo) => chain<Input, Tx, After>({ ...draft, steps: [...draft.steps, { ...step, undo }] }),
  }
}

function called<Input, Tx, Before, Result>(
  draft: Draft<Tx>,
  step: CallStep<Tx>,
): CalledStep<Input, Tx, Before, Result> {
  type After = Merged<Before, Result>
  return {
    ...chain<Input, Tx, After>({ ...draft, steps: [...draft.steps, step] }),
    undo(undo, { record } = {}) {
      const undoable: CallStep<Tx> = { ...step, undo, ...(record && { recordUndo: record }) }
      return chain<Input, Tx, After>({ ...draft, steps: [...draft.steps, undoable] })
    },
  }
}

function finished<Input, Tx>(draft: Draft<Tx>): SagaDefinition<Input, Tx> {
  if (!/^[a-z][a-z0-9_]{1,40}$/.test(draft.type)) {
    throw invalid(draft, 'must be named in snake_case, at most 41 characters')
  }
  if (!Number.isSafeInteger(draft.version) || draft.version < 1) {
    throw invalid(draft, `has version ${draft.version}; versions are whole numbers from 1`)
  }
  if (!(draft.timeoutMs > 0)) throw invalid(draft, `has timeoutMs ${draft.timeoutMs}; it must be above 0`)
  if (draft.steps.length === 0) throw invalid(draft, 'has no steps')
  const names = new Set<string>()
  for (const { name, retry } of draft.steps) {
    if (!/^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$/.test(name)) {
      throw invalid(draft, `has a step "${name}"; steps are named in UPPER_SNAKE_CASE`)
    }
    if (names.has(name)) throw invalid(draft, `has two steps named ${name}`)
    if (retry.timeoutMs !== undefined && !(retry.timeoutMs > 0)) {
      throw invalid(draft, `has timeoutMs ${retry.timeoutMs} at ${name}; it must be above 0`)
    }
    if (retry.delaysMs?.some((delayMs) => !(delayMs >= 0))) {
      throw invalid(draft, `has a delay below 0 at ${name}`)
    }
    names.add(name)
  }
  if (draft.pointOfNoReturn === draft.steps.length) {
    throw invalid(draft, 'has its point of no return after the last step, where it means nothing')
  }
  return Object.freeze({ ...draft, pointOfNoReturn: draft.pointOfNoReturn ?? draft.steps.length })
}

function invalid({ type, version }: { type: string; version: number }, what: string): InvalidDefinition {
  return new InvalidDefinition(`Saga ${type} v${version} ${what}`)
}
