/* The pure part: where a saga goes from here. No clock, no database; waits are relative, in ms. */
import type { Direction, SagaDefinition, SagaStatus } from './definition.ts'
import type { Failure } from './errors.ts'

/** Where a saga stands. */
export interface Position {
  readonly status: SagaStatus
  readonly direction: Direction
  readonly stepIndex: number
  /** Null while it goes forward, -1 when nothing is left to undo. */
  readonly undoIndex: number | null
  readonly attempt: number
  readonly retryCount: number
  readonly errorMessage: string | null
  readonly errorCode: string | null
}

/** What `decide` needs of a definition. */
export interface Plan {
  readonly steps: readonly {
    readonly name: string
    readonly undoable: boolean
    readonly delaysMs: readonly number[]
  }[]
  readonly pointOfNoReturn: number
}

/** What has happened to the current try. */
export type Outcome =
  | { readonly kind: 'done'; readonly result?: object | undefined }
  | { readonly kind: 'asked'; readonly withinMs: number }
  | { readonly kind: 'failed'; readonly error: Failure }
  | { readonly kind: 'deadline' }
  | { readonly kind: 'turned_back'; readonly error: Failure }
  | { readonly kind: 'unavailable' }
  | { readonly kind: 'poisoned'; readonly deaths: number }

export interface LogEntry {
  readonly step: string
  readonly direction: Direction
  readonly attempt: number
  readonly status: 'done' | 'asked' | 'failed' | 'expired' | 'quarantined' | 'turned_back'
  readonly error: string | null
}

export interface Decision {
  readonly to: Position
  readonly result: object | null
  readonly entry: LogEntry | null
  /** `go_on`: keep the lease and begin the next try; `wait`: give it back until then; `end`: for good. */
  readonly next:
    | { readonly kind: 'go_on' }
    | {
        readonly kind: 'wait'
        readonly delayMs: number
        /** A saga that can still turn back wakes at its deadline, whatever it waits for. */
        readonly untilTimeout: boolean
        readonly replyWithinMs: number | null
      }
    | { readonly kind: 'end' }
  readonly alarm: 'stuck' | 'quarantined' | 'no_return' | null
}

const DEFAULT_DELAYS_MS: readonly number[] = [1_000, 2_000, 4_000]
/** Decision 11. */
export const QUARANTINE_DEATHS = 5
const SLOW_RETRY_CAP_MS = 15 * 60_000
const SLOW_RETRY_FIRST_MS = 8_000
const UNAVAILABLE_DELAY_MS = 1_000

/** The plan of a definition. */
export function planOf(definition: SagaDefinition<never, never>): Plan {
  return {
    pointOfNoReturn: definition.pointOfNoReturn,
    steps: definition.steps.map((step) => ({
      name: step.name,
      undoable: step.undo !== undefined,
      delaysMs: step.retry.delaysMs ?? (step.kind === 'ask' ? [] : DEFAULT_DELAYS_MS),
    })),
  }
}

/** Whether a saga at this place may still turn back. */
export function canTurnBack(at: Position, plan: Plan): boolean {
  return at.direction === 'do' && at.stepIndex < plan.pointOfNoReturn
}

/** The last step up to `from` that has an undo; -1 when there is none. */
export function lastUndoable(plan: Plan, from: number): number {
  let index = from
  while (index >= 0 && plan.steps[index]?.undoable !== true) index -= 1
  return Math.max(index, -1)
}

/** The name of the step that is being done or undone. */
export function stepAt(at: Position, plan: Plan): string {
  const index = at.direction === 'undo' && (at.undoIndex ?? -1) >= 0 ? (at.undoIndex ?? -1) : at.stepIndex
  const step = plan.steps[index]
  if (step === undefined) throw new Error(`Saga stands at step ${index} of ${plan.steps.length}`)
  return step.name
}

/** Where a saga at `at` goes after `outcome`. */
export function decide(at: Position, plan: Plan, outcome: Outcome): Decision {
  if (at.status === 'COMPLETED' || at.status === 'COMPENSATED') {
    throw new Error(`Saga has ended ${at.status}; nothing is decided any more`)
  }
  const base: Decision = { to: at, result: null, entry: null, next: { kind: 'go_on' }, alarm: null }
  switch (outcome.kind) {
    case 'done':
      return at.direction === 'do' ? forwardDone(at, plan, outcome.result ?? null) : undoDone(at, plan)
    case 'failed':
      return at.direction === 'do'
        ? forwardFailed(at, plan, outcome.error)
        : undoFailed(at, plan, outcome.error)
    case 'asked':
      return {
        ...base,
        entry: entryOf(at, plan, 'asked', null),
        next: wait(outcome.withinMs, {
          untilTimeout: canTurnBack(at, plan),
          replyWithinMs: outcome.withinMs,
        }),
      }
    case 'deadline':
      return turnBack(at, plan, {
        status: 'expired',
        error: { message: `Timed out at ${stepAt(at, plan)}`, code: 'saga_timeout', retryable: false },
      })
    case 'turned_back':
      return turnBack(at, plan, { status: 'turned_back', error: outcome.error })
    case 'unavailable':
      // Our own database was away: nothing is known against the step.
      return { ...base, next: wait(UNAVAILABLE_DELAY_MS, { untilTimeout: canTurnBack(at, plan) }) }
    case 'poisoned':
      return {
        ...base,
        to: { ...at, status: 'QUARANTINED' },
        entry: entryOf(at, plan, 'quarantined', `${outcome.deaths} executors died on this step`),
        next: { kind: 'end' },
        alarm: 'quarantined',
      }
  }
}

function forwardDone(at: Position, plan: Plan, result: object | null): Decision {
  const entry = entryOf(at, plan, 'done', null)
  const stepIndex = at.stepIndex + 1
  if (stepIndex === plan.steps.length) {
    return { to: { ...at, status: 'COMPLETED' }, result, entry, next: { kind: 'end' }, alarm: null }
  }
  // The next step's intent is part of this very record: one commit per step.
  const to = { ...at, stepIndex, attempt: 0, retryCount: 0 }
  return { to, result, entry, next: { kind: 'go_on' }, alarm: null }
}

function forwardFailed(at: Position, plan: Plan, error: Failure): Decision {
  const delaysMs = plan.steps[at.stepIndex]?.delaysMs ?? []
  const delayMs = error.retryable ? delaysMs[at.attempt] : undefined
  const mayTurnBack = canTurnBack(at, plan)
  if (delayMs === undefined && mayTurnBack) return turnBack(at, plan, { status: 'failed', error })
  const retry = at.attempt + 1
  return {
    to: { ...at, attempt: retry, retryCount: retry },
    result: null,
    entry: entryOf(at, plan, 'failed', error.message),
    next: wait(delayMs ?? slowDelayMs(at.attempt - delaysMs.length), { untilTimeout: mayTurnBack }),
    alarm: delayMs === undefined ? 'no_return' : null,
  }
}

function turnBack(
  at: Position,
  plan: Plan,
  { status, error }: { status: 'failed' | 'expired' | 'turned_back'; error: Failure },
): Decision {
  if (!canTurnBack(at, plan)) {
    throw new Error(`Saga at ${stepAt(at, plan)} (${at.status}) cannot turn back`)
  }
  return {
    to: {
      ...at,
      status: 'COMPENSATING',
      direction: 'undo',
      // The failing step too: after a timeout or a crash it may have acted.
      undoIndex: lastUndoable(plan, at.stepIndex),
      attempt: 0,
      errorMessage: error.message,
      errorCode: error.code,
    },
    result: null,
    entry: entryOf(at, plan, status, error.message),
    next: { kind: 'go_on' },
    alarm: null,
  }
}

function undoDone(at: Position, plan: Plan): Decision {
  const undone = at.undoIndex ?? -1
  const undoIndex = lastUndoable(plan, undone - 1)
  const entry = undone === -1 ? null : entryOf(at, plan, 'done', null)
  const to = { ...at, undoIndex, attempt: 0 }
  if (undoIndex === -1) {
    return { to: { ...to, status: 'COMPENSATED' }, result: null, entry, next: { kind: 'end' }, alarm: null }
  }
  return { to: { ...to, status: 'COMPENSATING' }, result: null, entry, next: { kind: 'go_on' }, alarm: null }
}

function undoFailed(at: Position, plan: Plan, error: Failure): Decision {
  const delaysMs = plan.steps[at.undoIndex ?? -1]?.delaysMs ?? []
  // An ask's undo runs here; that its command is not repeated by default says nothing about its undo.
  const fastMs = delaysMs.length > 0 ? delaysMs : DEFAULT_DELAYS_MS
  const delayMs = error.retryable ? fastMs[at.attempt] : undefined
  const stuck = delayMs === undefined || at.status === 'COMPENSATION_STUCK'
  return {
    to: { ...at, attempt: at.attempt + 1, status: stuck ? 'COMPENSATION_STUCK' : 'COMPENSATING' },
    result: null,
    entry: entryOf(at, plan, 'failed', error.message),
    // A leak is worse than a late undo: it is tried for ever.
    next: wait(delayMs ?? slowDelayMs(at.attempt - fastMs.length), { untilTimeout: false }),
    alarm: stuck ? 'stuck' : null,
  }
}

function wait(
  delayMs: number,
  { untilTimeout, replyWithinMs }: { untilTimeout: boolean; replyWithinMs?: number },
): Decision['next'] {
  return { kind: 'wait', delayMs, untilTimeout, replyWithinMs: replyWithinMs ?? null }
}

/** 8 s, 16 s, 32 s ... 15 min, and so for ever. */
function slowDelayMs(slowTries: number): number {
  return Math.min(SLOW_RETRY_CAP_MS, SLOW_RETRY_FIRST_MS * 2 ** Math.min(Math.max(slowTries, 0), 10))
}

function entryOf(at: Position, plan: Plan, status: LogEntry['status'], error: string | null): LogEntry {
  return {
    step: stepAt(at, plan),
    direction: at.direction,
    attempt: at.attempt + 1,
    status,
    error,
  }
}
