/* Looks at every write, every try and the end of a simulated world, and says what must not be. It knows the database and the
 * outside world, never what an engine thinks. */
import { SUSPECT_DEATHS } from '../claim.ts'
import { QUARANTINE_DEATHS } from '../decide.ts'
import type { ModelDatabase, ModelRow, Write } from './model-store.ts'
import type { Scheduler } from './scheduler.ts'
import type { DefinitionShape } from './shapes.ts'
import type { VirtualProcess } from './virtual-process.ts'

export interface AuditorOptions {
  readonly scheduler: Scheduler
  readonly database: () => ModelDatabase
  readonly definitions: ReadonlyMap<string, DefinitionShape>
  readonly trusts: boolean
  /** Whether no fault has struck. */
  readonly isCalm: () => boolean
  readonly isProcessDead: (executorId: string) => boolean
}

/** One try of an outside effect. */
export interface Try {
  readonly process: VirtualProcess
  readonly sagaId: string
  readonly step: string
  readonly direction: 'do' | 'undo'
  readonly fence: number
}

/** Key to how often it was made; absent when it is not there. */
type Things = ReadonlyMap<string, number>

const ENDED: ReadonlySet<string> = new Set(['COMPLETED', 'COMPENSATED'])
/** The name of a step by its place. */
export const STEP_NAMES: readonly string[] = ['A', 'B', 'C', 'D', 'E']

export class Auditor {
  readonly violations: string[] = []
  /** States that were reached, and how often. */
  readonly states = new Map<string, number>()
  readonly #options: AuditorOptions
  readonly #tries = new Set<Try>()
  readonly #tryCounts = new Map<string, number>()
  /** Processes that a saga has killed since its last checkpoint. */
  readonly #kills = new Map<string, number>()
  #hasKilled = false

  constructor(options: AuditorOptions) {
    this.#options = options
  }

  reached(state: string): void {
    this.states.set(state, (this.states.get(state) ?? 0) + 1)
  }

  violated(what: string): void {
    this.#options.scheduler.trace(`!! ${what}`)
    this.violations.push(what)
  }

  /** Every committed change of a row. */
  wrote({ by, before, after, basis }: Write): void {
    if (before === undefined) return
    const saga = `${after.sagaId} #${after.fence} v${after.version}`
    if (ENDED.has(before.status))
      this.violated(`${saga}: changed by ${by} after it had ended ${before.status}`)
    if (after.fence < before.fence) this.violated(`${saga}: the fence fell from ${before.fence}`)
    if (by === 'claim') this.#claimed(before, after)
    if (by !== 'checkpoint' || basis === undefined) return
    if (basis.version !== before.version) {
      this.violated(`${saga}: a checkpoint decided upon v${basis.version} overwrote v${before.version}`)
    }
    if (basis.fence !== before.fence) {
      this.violated(
        `${saga}: a checkpoint under fence ${basis.fence} after fence ${before.fence} was given out`,
      )
    }
    this.#kills.delete(after.sagaId)
    this.#moved(saga, before, after)
  }

  /** A try of an outside effect begins; answers what to call when it is over. */
  tryBegins(own: Try): () => void {
    const { process, sagaId, step, direction, fence } = own
    const { database, trusts } = this.#options
    const key = `${sagaId}:${step}:${direction}`
    this.#tryCounts.set(key, (this.#tryCounts.get(key) ?? 0) + 1)
    const row = database().sagas.get(sagaId)
    const excused = (one: VirtualProcess): boolean => !trusts && this.#hasStoodStill(one)
    if (row !== undefined && fence < row.fence) {
      if (excused(process)) this.reached('stale try by a process that had stood still')
      else
        this.violated(`${process.name} tries ${key} under fence ${fence}, though ${row.fence} was given out`)
    }
    for (const other of this.#tries) {
      if (other.sagaId !== sagaId || other.process === process || other.process.isDead) continue
      // Whoever has just gone on has not yet seen that its time is over: what it had begun is one thing, a new try another.
      if (other.process.isFrozen || this.#hasStoodStill(other.process) || excused(process)) {
        this.reached('tries side by side, one of a process that stood still')
      } else {
        this.violated(
          `${process.name} tries ${key} #${fence} while ${other.process.name} tries it under #${other.fence}`,
        )
      }
    }
    this.#tries.add(own)
    return () => this.#tries.delete(own)
  }

  /** A step takes its process along. */
  killed(sagaId: string): void {
    this.#hasKilled = true
    const kills = (this.#kills.get(sagaId) ?? 0) + 1
    this.#kills.set(sagaId, kills)
    if (kills > QUARANTINE_DEATHS && this.#options.isCalm()) {
      this.violated(`${sagaId} has killed ${kills} processes at one step`)
    }
  }

  /** Whether the saga needs nothing any more, or only an operator. */
  isSettled(row: ModelRow): boolean {
    if (ENDED.has(row.status) || row.status === 'QUARANTINED') return true
    return row.status === 'COMPENSATION_STUCK' && this.#shapeAt(row)?.undoIsBroken === true
  }

  /** When everything has come to rest, with what is there outside. */
  ended(outside: Things): void {
    const database = this.#options.database()
    for (const row of database.sagas.values()) {
      this.reached(row.status)
      if (!this.isSettled(row)) {
        this.violated(`${row.sagaId} is ${row.status} at ${row.currentStep} when all has come to rest`)
        continue
      }
      const shape = this.#options.definitions.get(row.type)
      if (shape === undefined) continue
      this.#checkEffects(row, shape, outside)
      this.#checkLog(row, shape, database)
    }
  }

  #claimed(before: ModelRow, after: ModelRow): void {
    const database = this.#options.database()
    if (after.fence !== before.fence + 1) this.violated(`${after.sagaId}: claimed without a new fence`)
    if (before.deaths >= SUSPECT_DEATHS && this.#options.isCalm()) {
      // Those that become suspects by this very claim come with it.
      const held = [...database.sagas.values()].filter(
        ({ leaseOwner, deaths, begunAtMs }) =>
          leaseOwner === after.leaseOwner && deaths >= SUSPECT_DEATHS && begunAtMs !== after.begunAtMs,
      )
      if (held.length > 0) this.violated(`${after.leaseOwner} runs suspects side by side`)
    }
    if (before.leaseOwner === null) return
    const isAlive = database.executors.has(before.leaseOwner)
    const hasRunOut = (before.leaseUntilMs ?? 0) < this.#options.scheduler.nowMs
    if (isAlive && !hasRunOut)
      this.violated(`${after.sagaId}: claimed from ${before.leaseOwner}, who lives and holds it`)
    if (isAlive && hasRunOut && this.#options.isCalm()) {
      this.violated(`${after.sagaId}: ${before.leaseOwner} lost its lease on a good day`)
    }
    this.reached(isAlive ? 'taken over after its lease' : 'taken over from a dead executor')
    if (after.deaths === before.deaths) return
    const isDead = this.#options.isProcessDead(before.leaseOwner)
    this.reached(isDead ? 'death counted' : 'lost session of a living process counted as a death')
  }

  #moved(saga: string, before: ModelRow, after: ModelRow): void {
    const { pointOfNoReturn = 99 } = this.#options.definitions.get(after.type) ?? {}
    if (after.status === 'RUNNING' && after.leaseOwner === null && after.stepIndex < pointOfNoReturn) {
      const { nowMs } = this.#options.scheduler
      if (after.nextRunAtMs > Math.max(after.timeoutAtMs, nowMs))
        this.violated(`${saga}: waits beyond its deadline`)
    }
    if (after.version !== before.version + 1) this.violated(`${saga}: came after v${before.version}`)
    if (before.direction === 'undo' && after.direction === 'do')
      this.violated(`${saga}: turned forward again`)
    if (before.direction === 'do' && after.direction === 'undo') {
      if (before.stepIndex >= pointOfNoReturn)
        this.violated(`${saga}: turned back past the point of no return`)
      this.reached('turned back')
    }
    if (after.direction === 'do' && after.stepIndex < before.stepIndex)
      this.violated(`${saga}: went a step back`)
    if (before.undoIndex !== null && (after.undoIndex ?? 99) > before.undoIndex) {
      this.violated(`${saga}: undoes a step again that was undone`)
    }
    for (const key of Object.keys(before.state)) {
      if (!(key in after.state)) this.violated(`${saga}: lost the result of ${key}`)
    }
  }

  #hasStoodStill(process: VirtualProcess): boolean {
    return process.isDeceived || process.thawedAtMs === this.#options.scheduler.nowMs
  }

  #shapeAt(row: ModelRow) {
    return this.#options.definitions.get(row.type)?.steps[row.undoIndex ?? row.stepIndex]
  }

  #checkEffects(row: ModelRow, shape: DefinitionShape, outside: Things): void {
    const { things } = this.#options.database()
    const { sagaId, status } = row
    if (!ENDED.has(status)) return
    const count = (key: string): number => things.get(key) ?? 0
    const expected = (what: string, is: number, wanted: number): void => {
      if (is !== wanted)
        this.violated(`${sagaId} ended ${status}: ${what} is there ${is} times, not ${wanted}`)
    }
    const completed = status === 'COMPLETED' ? 1 : 0
    for (const [at, step] of shape.steps.entries()) {
      const name = STEP_NAMES[at] ?? ''
      const key = `${sagaId}:${name}`
      if (completed === 1 && !(name in row.state)) this.violated(`${sagaId}: the result of ${name} is lost`)
      if (completed === 0 && !step.undoable) continue
      if (step.kind === 'local') expected(key, count(key), completed)
      else expected(key, outside.get(key) ?? 0, completed)
      if (step.kind === 'call' && step.records)
        expected(`record of ${key}`, count(`${key}:record`), completed)
    }
    if (!shape.hasHooks) return
    expected('onCompleted', count(`${sagaId}:completed`), completed)
    expected('onCompensated', count(`${sagaId}:compensated`), 1 - completed)
  }

  #checkLog(row: ModelRow, shape: DefinitionShape, database: ModelDatabase): void {
    const entries = database.log.filter(({ sagaId }) => sagaId === row.sagaId)
    const flips = entries.filter(({ status }) => status === 'expired' || status === 'turned_back').length
    if (flips > 1) this.violated(`${row.sagaId}: its deadline flipped it ${flips} times`)
    if (flips === 1) this.reached('deadline flipped it')
    for (const [at, step] of shape.steps.entries()) {
      const name = STEP_NAMES[at] ?? ''
      for (const direction of ['do', 'undo'] as const) {
        const own = entries.filter((entry) => entry.step === name && entry.direction === direction)
        const failed = own.filter(({ status }) => status === 'failed')
        const attempts = failed.map(({ attempt }) => attempt)
        if (attempts.some((attempt, nth) => attempt !== nth + 1)) {
          this.violated(`${row.sagaId}: ${name}.${direction} failed as tries ${attempts.join(', ')}`)
        }
        const allowed = (step.delaysMs ?? (step.kind === 'ask' ? [] : [0, 0, 0])).length + 1
        if (direction === 'do' && at < shape.pointOfNoReturn && failed.length > allowed) {
          this.violated(`${row.sagaId}: ${name} was tried ${failed.length} times, not ${allowed}`)
        }
        if (own.filter(({ status }) => status === 'done').length > 1) {
          this.violated(`${row.sagaId}: ${name}.${direction} was done twice`)
        }
        // Whoever tries without saying what came of it has lost the saga meanwhile.
        const begun = this.#tryCounts.get(`${row.sagaId}:${name}:${direction}`) ?? 0
        const isGoodDay = this.#options.isCalm() && !this.#hasKilled
        if (begun > own.length + (isGoodDay ? 0 : row.fence)) {
          this.violated(
            `${row.sagaId}: ${name}.${direction} was begun ${begun} times, and told ${own.length} times`,
          )
        }
      }
    }
  }
}
