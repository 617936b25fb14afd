/* What the steps of simulated sagas act on: things by key, made and removed by calls and commands that come late, twice,
 * or after their sender has died. */
import { PermanentError } from '../errors.ts'
import type { AskOutcome } from '../row.ts'
import type { Auditor, Try } from './auditor.ts'
import type { Scheduler, TaskFault } from './scheduler.ts'
import type { Behaviour, StepShape } from './shapes.ts'
import type { VirtualProcess } from './virtual-process.ts'

interface Touch extends Try {
  readonly signal: AbortSignal
  readonly shape: StepShape
}

export interface Command {
  readonly sagaId: string
  readonly step: string
  /** Undefined: takes the command back, whether it has come or not. */
  readonly attempt: number | undefined
  readonly shape: StepShape
}

const DOUBLED: readonly TaskFault[] = ['bus message doubled']

export class OutsideWorld {
  /** Key to how often it was made; absent when it is not there now. */
  readonly things = new Map<string, number>()
  readonly #made = new Map<string, number>()
  readonly #tombstones = new Set<string>()
  readonly #fences = new Map<string, number>()
  readonly #tries = new Map<string, number>()
  readonly #answers = new Map<string, AskOutcome | undefined>()
  readonly #scheduler: Scheduler
  readonly #auditor: Auditor
  readonly #trusts: boolean
  readonly #onReply: (sagaId: string, step: string, outcome: AskOutcome) => void
  readonly #isLocked: (sagaId: string) => boolean

  constructor(options: {
    scheduler: Scheduler
    auditor: Auditor
    trusts: boolean
    onReply: (sagaId: string, step: string, outcome: AskOutcome) => void
    /** A reply waits for the saga's row. */
    isLocked: (sagaId: string) => boolean
  }) {
    this.#scheduler = options.scheduler
    this.#auditor = options.auditor
    this.#trusts = options.trusts
    this.#onReply = options.onReply
    this.#isLocked = options.isLocked
  }

  /** How the next try of this step goes. */
  behaviourOf({
    sagaId,
    step,
    shape,
    direction,
  }: Pick<Touch, 'sagaId' | 'step' | 'shape' | 'direction'>): Behaviour {
    const key = `${sagaId}:${step}:${direction}`
    const nth = this.#tries.get(key) ?? 0
    this.#tries.set(key, nth + 1)
    if (direction === 'undo' && shape.undoIsBroken) return 'refuses'
    return (direction === 'do' ? shape.tries : shape.undoTries)[nth] ?? 'works'
  }

  /** What a step does that takes its process along. */
  kill(sagaId: string, process: VirtualProcess): void {
    process.die()
    this.#auditor.killed(sagaId)
  }

  /** One try of a call or of its undo, from inside of a process. */
  touch(touch: Touch): Promise<object> {
    const { process, signal, shape } = touch
    if (signal.aborted) return Promise.reject(signal.reason)
    const behaviour = this.behaviourOf(touch)
    const over = this.#auditor.tryBegins(touch)
    return new Promise((resolve, reject) => {
      const flight = { isCancelled: false }
      const heeds = behaviour !== 'acts and is deaf' || !this.#keepsTombstones(shape)
      const abort = (): void => {
        over()
        if (!heeds) return
        // A target without tombstones promises that nothing happens after a cancellation.
        if (!this.#keepsTombstones(shape)) flight.isCancelled = true
        reject(signal.reason)
      }
      signal.addEventListener('abort', abort, { once: true })
      if (behaviour === 'kills') {
        this.kill(touch.sagaId, process)
        return
      }
      if (behaviour === 'hangs') return
      const settle = (error: Error | undefined): void => {
        over()
        signal.removeEventListener('abort', abort)
        if (error === undefined) resolve({ [touch.step]: touch.fence })
        else reject(error)
      }
      this.#send(touch, behaviour, flight, settle)
      if (behaviour === 'acts and kills') this.kill(touch.sagaId, process)
    })
  }

  /** A command has been committed to the outbox: it comes once or more, now or later, in any order. */
  send(command: Command): void {
    const { sagaId, step, attempt } = command
    this.#scheduler.add({
      label: `bus: ${attempt === undefined ? 'cancel' : `command ${attempt}`} ${sagaId}:${step}`,
      kind: 'bus',
      place: null,
      faults: DOUBLED,
      run: (fault) => {
        if (fault !== undefined) this.send(command)
        this.#hear(command)
      },
    })
  }

  #keepsTombstones(shape: StepShape): boolean {
    return !this.#trusts && shape.target === 'keeps tombstones'
  }

  #send(
    touch: Touch,
    behaviour: Behaviour,
    flight: { isCancelled: boolean },
    settle: (error: Error | undefined) => void,
  ): void {
    const { process, sagaId, step, direction, shape } = touch
    const label = `${sagaId}:${step} ${direction} #${touch.fence}`
    const answer = (error: Error | undefined): void =>
      this.#scheduler.add({
        label: `${process.name} <- ${label}: ${error?.message ?? 'done'}`,
        kind: 'effect_reply',
        place: process,
        faults: ['effect reply lost'],
        run: (fault) => settle(fault === undefined ? error : new Error('connection reset after the effect')),
      })
    const arrive = (fault?: TaskFault): void => {
      if (fault === 'effect request lost') answer(new Error('connection refused'))
      if (fault === 'effect request lost' || flight.isCancelled) return
      if (fault === 'effect request doubled') {
        this.#scheduler.add({ ...request, faults: [], run: () => void this.#act(touch) })
      }
      const refused = behaviour === 'fails' || behaviour === 'refuses' ? undefined : this.#act(touch)
      if (behaviour !== 'acts and is deaf') answer(refused ?? failureOfBehaviour(behaviour))
    }
    const request = {
      label: `${process.name} => ${label} (${behaviour})`,
      kind: 'effect_request',
      place: null,
      faults: this.#keepsTombstones(shape)
        ? (['effect request lost', 'effect request doubled'] as const)
        : (['effect request lost'] as const),
      run: arrive,
    } as const
    if (this.#trusts) {
      this.#scheduler.trace(request.label)
      arrive()
    } else this.#scheduler.add(request)
  }

  /** Ensures that the thing is there, or that it is not; refuses what comes too late. */
  #act({ sagaId, step, direction, fence, shape }: Touch): Error | undefined {
    const key = `${sagaId}:${step}`
    if (!this.#trusts && shape.target === 'checks fences') {
      if (fence < (this.#fences.get(sagaId) ?? 0)) {
        this.#auditor.reached('stale fence refused by the target')
        return new Error(`fence ${fence} is stale`)
      }
      this.#fences.set(sagaId, fence)
    }
    if (direction === 'do') return this.#make(key)
    this.#remove(key, this.#keepsTombstones(shape))
    return undefined
  }

  #make(key: string): Error | undefined {
    if (this.#tombstones.has(key)) {
      this.#auditor.reached('late effect refused by a tombstone')
      return new PermanentError('gone', `${key} has been undone`)
    }
    if (this.things.has(key)) this.#auditor.reached('effect repeated, and found there')
    else {
      const times = (this.#made.get(key) ?? 0) + 1
      this.#made.set(key, times)
      this.things.set(key, times)
    }
    return undefined
  }

  #remove(key: string, withTombstone: boolean): void {
    if (withTombstone) this.#tombstones.add(key)
    if (!this.things.delete(key)) this.#auditor.reached('undo of what never was')
  }

  /** The other service: idempotent by the command's id, with a tombstone for what was cancelled. */
  #hear(command: Command): void {
    const { sagaId, step, attempt, shape } = command
    const key = `${sagaId}:${step}`
    if (attempt === undefined) {
      this.#remove(key, true)
      return
    }
    const id = `${key}:${attempt}`
    if (!this.#answers.has(id)) this.#answers.set(id, this.#obey(command, key, shape))
    const outcome = this.#answers.get(id)
    if (outcome !== undefined) this.#reply(sagaId, step, outcome)
  }

  #obey({ sagaId, step }: Command, key: string, shape: StepShape): AskOutcome | undefined {
    const behaviour = this.behaviourOf({ sagaId, step, shape, direction: 'do' })
    if (behaviour === 'hangs') return undefined
    const refused = behaviour === 'fails' || behaviour === 'refuses' ? undefined : this.#make(key)
    if (behaviour === 'acts and is deaf') return undefined
    const error = refused ?? failureOfBehaviour(behaviour)
    if (error === undefined) return { ok: true, result: { [step]: key } }
    const retryable = !(error instanceof PermanentError)
    return { ok: false, error: { message: error.message, retryable } }
  }

  #reply(sagaId: string, step: string, outcome: AskOutcome): void {
    this.#scheduler.add({
      label: `bus: reply ${sagaId}:${step} ${outcome.ok ? 'ok' : outcome.error.message}`,
      kind: 'bus',
      place: null,
      faults: DOUBLED,
      isReady: () => !this.#isLocked(sagaId),
      run: (fault) => {
        if (fault !== undefined) this.#reply(sagaId, step, outcome)
        this.#onReply(sagaId, step, outcome)
      },
    })
  }
}

/** What a try that has reached its target answers. */
export function failureOfBehaviour(behaviour: Behaviour): Error | undefined {
  if (behaviour === 'fails' || behaviour === 'acts and fails') return new Error('busy')
  if (behaviour === 'refuses' || behaviour === 'acts and refuses')
    return new PermanentError('refused', 'refused')
  return undefined
}
