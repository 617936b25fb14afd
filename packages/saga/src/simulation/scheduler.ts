/* Time and order of a simulated world. Whatever waits for the store, the clock, an effect or the bus is a task here; between
 * two tasks all code of all processes runs on until it waits again, so that a schedule is the list of tasks it ran. */
import type { Choices } from './choices.ts'

export type TaskKind =
  /** Inside of a process: a timer that rang, a named place. It takes no time: the clock stands still until it has run. */
  'local' | 'store_request' | 'store_reply' | 'effect_request' | 'effect_reply' | 'bus' | 'hint'

/** What may happen to a task instead of what it is for. */
export type TaskFault =
  | 'request lost'
  | 'request timed out'
  | 'reply lost'
  | 'serialization failure'
  | 'effect request lost'
  | 'effect request doubled'
  | 'effect reply lost'
  | 'bus message doubled'
  | 'hint lost'

/** Where a task takes place; null: on the network, in the database, in the outside world. */
export interface Place {
  readonly isRunning: boolean
  readonly isDead: boolean
}

export interface Task {
  readonly label: string
  readonly kind: TaskKind
  readonly place: Place | null
  /** The faults that can happen to it. */
  readonly faults?: readonly TaskFault[]
  /** Whether it could run now; a statement before a locked row cannot. */
  readonly isReady?: () => boolean
  run(fault: TaskFault | undefined): void
}

/** What may happen to the world between two tasks; `draw` picks whom it meets and how hard. Undefined: to nobody, now. */
export type WorldFault = (draw: number) => string | undefined

export interface SchedulerOptions {
  readonly choices: Choices
  readonly worldFaults: readonly {
    readonly name: string
    readonly strike: WorldFault
    readonly weight: number
  }[]
  /** A task may be held up for one of these. */
  readonly delaysMs: readonly number[]
  readonly onFault: (name: string) => void
  readonly trace: ((line: string) => void) | undefined
}

interface Timer {
  readonly atMs: number
  readonly place: Place | null
  readonly label: string
  readonly ring: () => void
}

interface Queued extends Task {
  notBeforeMs: number
}

const RARE: ReadonlySet<TaskKind> = new Set(['effect_request', 'effect_reply', 'bus'])

export class Scheduler {
  nowMs = 0
  steps = 0
  readonly #options: SchedulerOptions
  readonly #worldFaults: SchedulerOptions['worldFaults']
  #queue: Queued[] = []
  #timers = new Set<Timer>()
  #isOver = false

  constructor(options: SchedulerOptions) {
    this.#options = options
    this.#worldFaults = options.worldFaults.flatMap((fault) =>
      Array.from({ length: fault.weight }, () => fault),
    )
  }

  add(task: Task): void {
    if (!this.#isOver) this.#queue.push({ ...task, notBeforeMs: 0 })
  }

  /** Rings after `ms` (time goes in whole ones), in its place: a process that is frozen hears it when it thaws, a dead one never. Answers how to cancel it. */
  after(ms: number, timer: { place: Place | null; label: string; ring: () => void }): () => void {
    const own: Timer = { atMs: Math.ceil(this.nowMs + Math.max(0, ms)), ...timer }
    this.#timers.add(own)
    return () => {
      this.#timers.delete(own)
    }
  }

  /** Messages on their way: not the hints, and nothing inside of a process. */
  get isQuiet(): boolean {
    return this.#queue.every(
      ({ kind, place }) => kind === 'hint' || kind === 'local' || place?.isDead === true,
    )
  }

  trace(line: string): void {
    if (!this.#isOver) this.#options.trace?.(`${this.nowMs.toFixed(0).padStart(8)} ms  ${line}`)
  }

  /** Nothing that comes from now on happens any more. */
  end(): void {
    this.#isOver = true
    this.#queue = []
  }

  /** Goes on until `isOver`; answers false when that took more than `maxSteps` or nothing was left to do. */
  async run(isOver: () => boolean, maxSteps: number): Promise<boolean> {
    for (; this.steps < maxSteps; this.steps += 1) {
      await codeRuns()
      if (isOver()) return true
      if (!this.#step(this.#options.choices[this.steps] ?? 0)) return false
    }
    return false
  }

  #step(choice: number): boolean {
    this.#queue = this.#queue.filter(({ place }) => place?.isDead !== true)
    const ready = this.#queue.filter(
      (task) =>
        task.notBeforeMs <= this.nowMs && (task.place?.isRunning ?? true) && (task.isReady?.() ?? true),
    )
    const fault = choice >> 8
    const draw = choice & 0xff
    if (fault > 0 && this.#strike(fault, draw, ready)) return true
    const mayTick = this.#timers.size > 0 && ready.every(({ kind }) => kind !== 'local')
    const options = ready.length + (mayTick ? 1 : 0)
    if (options === 0) return false
    const task = ready[draw % options]
    if (task === undefined) this.#tick()
    else this.#run(task, undefined)
    return true
  }

  /** One fault in three meets the world, the others what is under way. Answers whether there was anything to meet. */
  #strike(fault: number, draw: number, ready: readonly Queued[]): boolean {
    if (fault % 3 === 0) {
      const what = this.#worldFaults[Math.floor(fault / 3) % this.#worldFaults.length]
      const told = what?.strike(draw)
      if (what === undefined || told === undefined) return false
      this.#options.onFault(what.name)
      this.trace(`** ${what.name}: ${told}`)
      return true
    }
    // Statements are many, effects and messages few: half of the faults look for one of those first.
    const rare = (fault & 4) === 0 ? [] : ready.filter(({ kind }) => RARE.has(kind))
    const targets = rare.length > 0 ? rare : ready.filter(({ kind }) => kind !== 'local')
    const task = targets[draw % Math.max(1, targets.length)]
    if (task === undefined) return false
    const { faults = [] } = task
    const what = faults[Math.floor(fault / 3) % (faults.length + 1)]
    if (what === undefined) this.#hold(task, Math.floor(draw / targets.length))
    else {
      this.#options.onFault(what)
      this.#run(task, what)
    }
    return true
  }

  #hold(task: Queued, draw: number): void {
    const { delaysMs } = this.#options
    const delayMs = delaysMs[draw % delaysMs.length] ?? 0
    this.#options.onFault('delayed')
    this.trace(`** delayed by ${delayMs} ms: ${task.label}`)
    task.notBeforeMs = this.nowMs + delayMs
    this.after(delayMs, { place: null, label: '', ring: () => undefined })
  }

  #run(task: Queued, fault: TaskFault | undefined): void {
    this.#queue.splice(this.#queue.indexOf(task), 1)
    if (task.label !== '') this.trace(fault === undefined ? task.label : `** ${fault}: ${task.label}`)
    task.run(fault)
  }

  #tick(): void {
    let atMs = Number.POSITIVE_INFINITY
    for (const timer of this.#timers) if (timer.atMs < atMs) atMs = timer.atMs
    this.nowMs = Math.max(this.nowMs, atMs)
    for (const timer of this.#timers) {
      if (timer.atMs > this.nowMs) continue
      this.#timers.delete(timer)
      if (timer.place === null) timer.ring()
      else if (!timer.place.isDead) {
        this.add({ label: timer.label, kind: 'local', place: timer.place, run: timer.ring })
      }
    }
  }
}

/** All promises that can go on have gone on: what is left waits for a task. */
function codeRuns(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
