import type { EventDefinition } from '@cloudphone/contracts/event'
import { DatabaseUnavailable } from '@cloudphone/db/errors'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Tracer } from '@cloudphone/observe/trace'
import type { EventFacts } from '@cloudphone/outbox/outbox'
import type { Checkpoint } from './checkpoint.ts'
import { isPoisoned } from './claim.ts'
import type { Deadlines } from './deadlines.ts'
import { canTurnBack, type Decision, decide, type Outcome, type Plan, stepAt } from './decide.ts'
import type { CallContext, SagaDefinition, Step, StepContext } from './definition.ts'
import { type Cut, tryEffect } from './effect.ts'
import { failureOf } from './errors.ts'
import { failureOfReply, type SagaRow } from './row.ts'
import { inTrySpan, noteOutcome } from './step-span.ts'
import type { SagaStore } from './store.ts'
import type { Telemetry } from './telemetry.ts'

/** The outbox, in the store's own transactions. */
export interface CommandOutbox<Transaction> {
  add(tx: Transaction, definition: EventDefinition, facts: EventFacts<EventDefinition>): Promise<void>
}

/** What running a saga takes; one per engine. */
export interface Room<Transaction> {
  readonly store: SagaStore<Transaction>
  /** Where the commands of ask steps go. */
  readonly outbox: CommandOutbox<Transaction> | undefined
  readonly log: Logger
  readonly crash: CrashPoints
  readonly clock: Clock
  readonly realClock: Clock
  readonly leaseTtlMs: number
  readonly telemetry: Telemetry
  /** Undefined: tries are no spans. */
  readonly tracer?: Tracer | undefined
  /** A saga has been written: tell those who wait for it, and look again when the next one is due. */
  readonly moved: (row: SagaRow, decision: Decision) => void
}

/** A claimed saga in the hands of this process. */
export interface Run<Transaction> {
  readonly row: SagaRow
  readonly executorId: string
  readonly definition: SagaDefinition<never, Transaction>
  readonly plan: Plan
  readonly deadlines: Deadlines
  /** Aborts when the lease is lost or the process must stop now. */
  readonly abandon: AbortController
  /** Monotonic, real time: after it the lease may be somebody else's, whatever the database says later. */
  trustUntilMs: number
  /** Set when the process drains: the next checkpoint gives the lease back. */
  draining: boolean
  /** Its last checkpoint is written: whoever hears of that finds the hand free. */
  over: boolean
}

/** The database refused a write: the saga has moved on without us. */
class Refused extends Error {
  override readonly name = 'Refused'
}

/** A lease is not trusted up to its last moment: clocks of two machines need not tick alike. */
const TRUST_SHARE = 0.9
const DEFAULT_TIMEOUT_MS = 30_000
const DATABASE_RETRY_MS = 250
const DATABASE_RETRIES = 20

/** The monotonic instant until which a lease that was asked for at `askedMs` can be trusted. */
export function trustUntil(askedMs: number, leaseTtlMs: number): number {
  return askedMs + leaseTtlMs * TRUST_SHARE
}

/** Carries a claimed saga on until it ends, has to wait, or is no longer ours. */
export async function runSaga<Transaction>(room: Room<Transaction>, run: Run<Transaction>): Promise<void> {
  await room.crash.reach('saga.after_claim')
  let row: SagaRow | undefined = run.row
  while (row !== undefined) {
    // The event loop may have stood still for longer than the lease.
    if (room.realClock.monotonicMs() >= run.trustUntilMs) run.abandon.abort(new Error('lease ran out'))
    if (run.abandon.signal.aborted) return
    const turn: Turn<Transaction> = new Turn(room, run, row)
    row = await (room.tracer === undefined
      ? turn.take()
      : inTrySpan(room.tracer, row, stepAt(row, run.plan), () => turn.take()))
  }
}

/** One try of one step, from a row as it was read to the row that the checkpoint left. */
class Turn<Transaction> {
  readonly #room: Room<Transaction>
  readonly #run: Run<Transaction>
  readonly #row: SagaRow
  readonly #step: string
  readonly #startedMs: number
  /** Whether the last checkpoint gives the lease back although the saga could go on. */
  #released = false

  constructor(room: Room<Transaction>, run: Run<Transaction>, row: SagaRow) {
    this.#room = room
    this.#run = run
    this.#row = row
    this.#step = stepAt(row, run.plan)
    this.#startedMs = room.clock.monotonicMs()
  }

  /** Resolves with the row to go on with; undefined when this process is through with it for now. */
  async take(): Promise<SagaRow | undefined> {
    try {
      return await this.#try()
    } catch (thrown) {
      if (thrown instanceof Refused) return await this.#reload()
      if (this.#run.abandon.signal.aborted) return undefined
      return await this.#settle(
        thrown instanceof DatabaseUnavailable
          ? { kind: 'unavailable' }
          : { kind: 'failed', error: failureOf(thrown) },
      ).catch((error: unknown) => {
        if (error instanceof Refused) return this.#reload()
        throw error
      })
    }
  }

  async #try(): Promise<SagaRow | undefined> {
    const row = this.#row
    const foregone = foregoneOutcome(row, this.#run.plan, this.#step)
    if (foregone?.kind === 'done') return this.#settleWith(async () => foregone)
    if (foregone !== undefined) return this.#settle(foregone)
    if (row.direction === 'undo') return this.#undo()
    const step = this.#definitionOf(row.stepIndex)
    if (step.kind === 'call') return this.#call(step)
    return this.#settleWith(async (tx) => {
      await this.#reach('before_effect')
      const outcome: Outcome =
        step.kind === 'local'
          ? { kind: 'done', result: asResult(await step.run(tx, row.state as never, this.#context()), step) }
          : await this.#ask(tx, step)
      await this.#reach('after_effect')
      return outcome
    })
  }

  async #ask(tx: Transaction, step: Extract<Step<Transaction>, { kind: 'ask' }>): Promise<Outcome> {
    const { outbox } = this.#room
    if (outbox === undefined) throw new Error(`${step.name} asks, but openSagas was given no outbox`)
    const facts = await step.facts(tx, this.#row.state as never, this.#context())
    await outbox.add(tx, step.command, facts)
    return { kind: 'asked', withinMs: step.withinMs }
  }

  async #call(step: Extract<Step<Transaction>, { kind: 'call' }>): Promise<SagaRow | undefined> {
    const row = this.#row
    const outcome = await this.#effect(step, (context) => step.run(row.state as never, context))
    if (outcome === undefined || outcome.kind !== 'done') return outcome && this.#settle(outcome)
    const result = asResult(outcome.result, step)
    const { record } = step
    const done: Outcome = { kind: 'done', result }
    if (record === undefined) return this.#settleWith(undefined, done)
    return this.#settleWith(async (tx) => {
      await record(tx, { ...row.state, ...result } as never, this.#context())
      return done
    })
  }

  async #undo(): Promise<SagaRow | undefined> {
    const row = this.#row
    const done: Outcome = { kind: 'done' }
    if (row.undoIndex === null || row.undoIndex < 0) return this.#settleWith(undefined, done)
    const step = this.#definitionOf(row.undoIndex)
    if (step.kind !== 'call') {
      return this.#settleWith(async (tx) => {
        await this.#reach('before_effect')
        await step.undo?.(tx, row.state as never, this.#context())
        await this.#reach('after_effect')
        return done
      })
    }
    const outcome = await this.#effect(step, async (context) => step.undo?.(row.state as never, context))
    if (outcome === undefined || outcome.kind !== 'done') return outcome && this.#settle(outcome)
    const { recordUndo } = step
    if (recordUndo === undefined) return this.#settleWith(undefined, done)
    return this.#settleWith(async (tx) => {
      await recordUndo(tx, row.state as never, this.#context())
      return done
    })
  }

  /** One try of an outside effect; undefined when it was cut off because the saga is no longer ours. */
  async #effect(
    step: Extract<Step<Transaction>, { kind: 'call' }>,
    effect: (context: CallContext) => Promise<unknown>,
  ): Promise<Outcome | undefined> {
    const { realClock } = this.#room
    const row = this.#row
    const outcome = await tryEffect({
      step: step.name,
      timeoutMs: step.retry.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      remainingMs: canTurnBack(row, this.#run.plan) ? row.remainingMs : null,
      given: this.#run.abandon.signal,
      deadlines: this.#run.deadlines,
      realClock,
      effect: async (cut) => {
        await this.#reach('before_effect')
        const key = `${row.sagaId}:${step.name}${row.direction === 'undo' ? ':undo' : ''}`
        const value = await effect(callContext(this.#context(), { key, fence: row.fence, cut }))
        await this.#reach('after_effect')
        return value
      },
    })
    if (outcome.kind === 'abandoned') return undefined
    if (outcome.kind !== 'done') return outcome
    return { kind: 'done', result: asResult(outcome.value, step) }
  }

  /** Records an outcome that nothing else has to be committed with. */
  async #settle(outcome: Outcome): Promise<SagaRow | undefined> {
    const decision = decide(this.#row, this.#run.plan, outcome)
    const askedMs = this.#room.realClock.monotonicMs()
    const next = await this.#persist(() => this.#room.store.checkpoint(this.#point(decision)))
    if (next === undefined) throw new Refused('fence or version has moved on')
    return this.#settled(decision, next, askedMs)
  }

  /** Runs `work` and records what came of it, and the saga's end if this was it, in one transaction. */
  async #settleWith(
    work: ((tx: Transaction) => Promise<Outcome>) | undefined,
    known?: Outcome,
  ): Promise<SagaRow | undefined> {
    if (work === undefined && known !== undefined && !this.#endsWithHook(known)) return this.#settle(known)
    const askedMs = this.#room.realClock.monotonicMs()
    const { decision, next } = await this.#persist(() =>
      this.#room.store.transaction(async (tx) => {
        const outcome = work === undefined ? known : await work(tx)
        if (outcome === undefined) throw new Error('a turn without an outcome')
        const decision = decide(this.#row, this.#run.plan, outcome)
        const next = await this.#room.store.checkpointIn(tx, this.#point(decision))
        if (next === undefined) throw new Refused('fence or version has moved on')
        await this.#runHook(tx, next)
        return { decision, next }
      }),
    )
    return this.#settled(decision, next, askedMs)
  }

  async #settled(decision: Decision, next: SagaRow, askedMs: number): Promise<SagaRow | undefined> {
    const { telemetry, realClock, leaseTtlMs, clock } = this.#room
    const { entry, alarm } = decision
    // The lease was renewed by the checkpoint, some time after it was asked for.
    this.#run.trustUntilMs = Math.max(this.#run.trustUntilMs, trustUntil(askedMs, leaseTtlMs))
    if (realClock.monotonicMs() >= this.#run.trustUntilMs) this.#run.abandon.abort(new Error('lease ran out'))
    telemetry.stepTook(this.#row, this.#step, clock.monotonicMs() - this.#startedMs)
    noteOutcome(entry)
    if (entry?.status === 'failed') telemetry.failed(this.#row, this.#step, entry.error)
    if (alarm !== null) telemetry.alarmed(next, this.#step, alarm)
    if (next.endedAt !== null) telemetry.ended(next)
    this.#run.over = decision.next.kind !== 'go_on'
    this.#room.moved(next, decision)
    await this.#reach('after_checkpoint')
    if (decision.next.kind !== 'go_on') return undefined
    if (!this.#run.draining) return next
    // The order to drain may have come after the checkpoint was made up.
    const { sagaId, fence } = next
    if (!this.#released) await this.#room.store.giveBack({ sagaId, fence, delayMs: 0 })
    return undefined
  }

  /** A lost connection says nothing of the commit: the version in the checkpoint keeps a second one from counting. */
  async #persist<Result>(write: () => Promise<Result>): Promise<Result> {
    for (let retry = 0; ; retry += 1) {
      try {
        return await write()
      } catch (error) {
        if (!(error instanceof DatabaseUnavailable) || retry >= DATABASE_RETRIES) throw error
        await this.#room.realClock.sleep(DATABASE_RETRY_MS, this.#run.abandon.signal)
      }
    }
  }

  async #reload(): Promise<SagaRow | undefined> {
    const { sagaId, fence } = this.#row
    const held = await this.#room.store.readHeld({
      sagaId,
      fence,
      executorId: this.#run.executorId,
    })
    if (held === undefined) this.#room.log.debug({ event: 'saga.superseded', sagaId, fence })
    return held
  }

  #endsWithHook(outcome: Outcome): boolean {
    const { status } = decide(this.#row, this.#run.plan, outcome).to
    const { onCompleted, onCompensated } = this.#run.definition
    return (
      (status === 'COMPLETED' && onCompleted !== undefined) ||
      (status === 'COMPENSATED' && onCompensated !== undefined)
    )
  }

  async #runHook(tx: Transaction, next: SagaRow): Promise<void> {
    const { onCompleted, onCompensated } = this.#run.definition
    if (next.status === 'COMPLETED') await onCompleted?.(tx, next.state as never, this.#context())
    if (next.status !== 'COMPENSATED') return
    await onCompensated?.(tx, next.state as never, {
      ...this.#context(),
      error: next.errorMessage ?? '',
      errorCode: next.errorCode ?? 'error',
      failedStep: next.currentStep,
    })
  }

  #point(decision: Decision): Checkpoint {
    this.#released = this.#run.draining
    return {
      row: this.#row,
      decision,
      currentStep: this.#definitionOf(decision.to.stepIndex).name,
      executorId: this.#run.executorId,
      leaseTtlMs: this.#room.leaseTtlMs,
      tookMs: Math.max(0, this.#room.clock.monotonicMs() - this.#startedMs),
      release: this.#released,
    }
  }

  #context(): StepContext {
    const { sagaId, userId, tenantId, attempt } = this.#row
    return { sagaId, userId, tenantId, attempt: attempt + 1 }
  }

  #definitionOf(index: number): Step<Transaction> {
    const step = this.#run.definition.steps[index]
    if (step === undefined) throw new Error(`Saga ${this.#row.sagaId} has no step ${index}`)
    return step
  }

  async #reach(place: 'before_effect' | 'after_effect' | 'after_checkpoint'): Promise<void> {
    const undo = this.#row.direction === 'undo' ? '.undo' : ''
    await this.#room.crash.reach(`saga.${this.#row.type}.${this.#step}${undo}.${place}`)
  }
}

/** The context of a call; its signal is made only for those who ask for it. */
function callContext(
  context: StepContext,
  { key, fence, cut }: { key: string; fence: number; cut: Cut },
): CallContext {
  return {
    ...context,
    key,
    fence,
    get signal() {
      return cut.signal
    },
  }
}

/** What is already decided about a row before anything is tried; undefined when its step is to be tried. */
function foregoneOutcome(row: SagaRow, plan: Plan, step: string): Outcome | undefined {
  if (isPoisoned(row)) return { kind: 'poisoned', deaths: row.deaths }
  if (row.reply !== null) {
    return row.reply.ok
      ? { kind: 'done', result: row.reply.result }
      : { kind: 'failed', error: failureOfReply(row.reply.error) }
  }
  if (canTurnBack(row, plan) && row.remainingMs <= 0) return { kind: 'deadline' }
  if (row.replyDueInMs === null) return undefined
  if (row.replyDueInMs > 0) return { kind: 'asked', withinMs: row.replyDueInMs }
  return {
    kind: 'failed',
    error: { message: `${step} was not answered in time`, code: 'timeout', retryable: true },
  }
}

/** A result as the database will give it back, so that a step sees the same before and after a crash. */
function asResult(value: unknown, { name }: { name: string }): object | undefined {
  if (value === undefined || value === null) return undefined
  const kept: unknown = JSON.parse(JSON.stringify(value) ?? 'null')
  if (typeof kept !== 'object' || kept === null || Array.isArray(kept)) {
    throw new TypeError(`${name} returned ${typeof value}; a step returns an object or nothing`)
  }
  return kept
}
