/* One world, one schedule: the real dispatcher, crew, runs and effects of two or three processes over the model store. */
import { DatabaseUnavailable } from '@cloudphone/db/errors'
import type { Logger } from '@cloudphone/observe/log'
import { type Dispatcher, openDispatcher } from '../dispatcher.ts'
import type { Room } from '../run.ts'
import type { Telemetry } from '../telemetry.ts'
import { Auditor } from './auditor.ts'
import type { Choices } from './choices.ts'
import { ModelDatabase, type ModelTx, type Weakness } from './model-store.ts'
import { OutsideWorld } from './outside-world.ts'
import { type RemoteStore, remoteStore } from './remote-store.ts'
import { Scheduler } from './scheduler.ts'
import type { DefinitionShape, Scenario } from './shapes.ts'
import { definitionsIn, virtualOutbox } from './virtual-definitions.ts'
import { VirtualProcess } from './virtual-process.ts'

export interface SimulationOptions {
  readonly scenario: Scenario
  readonly choices: Choices
  readonly weaknesses?: ReadonlySet<Weakness>
  readonly trace?: ((line: string) => void) | undefined
  /** A silent one. */
  readonly log: Logger
}

export interface SimulationResult {
  readonly violations: readonly string[]
  /** Faults that struck, by kind. */
  readonly faults: ReadonlyMap<string, number>
  /** States that were reached. */
  readonly states: ReadonlyMap<string, number>
  readonly steps: number
}

const TRACEPARENT = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-00`
const MAX_STEPS = 20_000
/** A supervisor starts another process in the dead one's place. */
const RESTART_MS = 1_500
/** A caller without an answer asks again. */
const ASKED_AGAIN_MS = 3_000
/** Plays a schedule to its end and says what it saw. The same arguments give the same result. */
export async function simulate(options: SimulationOptions): Promise<SimulationResult> {
  return new World(options).play()
}

interface Engine {
  readonly dispatcher: Dispatcher
  readonly store: RemoteStore
}

class World {
  readonly #scenario: Scenario
  readonly #log: Logger
  readonly #scheduler: Scheduler
  readonly #database: ModelDatabase
  readonly #outside: OutsideWorld
  readonly #auditor: Auditor
  readonly #shapes: ReadonlyMap<string, DefinitionShape>
  readonly #faults = new Map<string, number>()
  readonly #processes: (VirtualProcess | undefined)[] = []
  readonly #engines = new Map<VirtualProcess | undefined, Engine>()
  readonly #names = new Map<string, VirtualProcess>()
  #lastId = 0

  constructor({ scenario, choices, weaknesses, trace, log }: SimulationOptions) {
    this.#log = log
    this.#scenario = scenario
    const { leaseTtlMs } = scenario
    this.#scheduler = new Scheduler({
      choices,
      trace,
      delaysMs: [100, 1_000, 5_000, leaseTtlMs * 0.7, leaseTtlMs * 1.5],
      onFault: (name) => this.#faults.set(name, (this.#faults.get(name) ?? 0) + 1),
      worldFaults: [
        { name: 'process killed', weight: 3, strike: (draw) => this.#kill(draw) },
        { name: 'process frozen', weight: 3, strike: (draw) => this.#freeze(draw) },
        { name: 'database out of reach', weight: 2, strike: (draw) => this.#cutOff(draw) },
        { name: 'session lost', weight: 2, strike: (draw) => this.#loseSession(draw) },
        { name: 'process stopped', weight: 1, strike: (draw) => this.#stop(draw) },
        { name: 'database restarted', weight: 1, strike: () => this.#restartDatabase() },
      ],
    })
    this.#shapes = new Map(scenario.definitions.map((shape, at) => [`saga_${at}`, shape]))
    this.#auditor = new Auditor({
      scheduler: this.#scheduler,
      database: () => this.#database,
      definitions: this.#shapes,
      trusts: scenario.trusts,
      isCalm: () => this.#faults.size === 0,
      isProcessDead: (executorId) => this.#names.get(executorId.split('.')[0] ?? '')?.isDead === true,
    })
    this.#database = new ModelDatabase({
      appNowMs: () => this.#scheduler.nowMs,
      realNowMs: () => this.#scheduler.nowMs,
      ...(weaknesses === undefined ? {} : { weaknesses }),
      onWrite: (write) => this.#auditor.wrote(write),
    })
    this.#outside = new OutsideWorld({
      scheduler: this.#scheduler,
      auditor: this.#auditor,
      trusts: scenario.trusts,
      isLocked: (sagaId) => this.#database.isLocked(sagaId),
      onReply: (sagaId, step, outcome) => {
        const fate = this.#database.reply(sagaId, step, outcome)
        this.#auditor.reached(`reply ${fate}`)
        if (fate === 'accepted') this.#hint()
      },
    })
  }

  async play(): Promise<SimulationResult> {
    for (const slot of this.#scenario.clocks.keys()) this.#launch(slot)
    for (const [at, saga] of this.#scenario.sagas.entries()) {
      this.#scheduler.after(saga.startsAtMs, { place: null, label: '', ring: () => this.#start(at) })
    }
    const hasEnded = await this.#scheduler.run(() => this.#isOver(), MAX_STEPS)
    if (!hasEnded) this.#auditor.violated(`not at rest after ${this.#scheduler.steps} steps`)
    this.#auditor.ended(this.#outside.things)
    this.#scheduler.end()
    for (const process of this.#names.values()) process.forget()
    return {
      violations: this.#auditor.violations,
      faults: this.#faults,
      states: this.#auditor.states,
      steps: this.#scheduler.steps,
    }
  }

  /** A caller asks until it is there: by way of a process, or of one that runs no sagas. */
  #start(at: number): void {
    const { definition = 0, startedBy } = this.#scenario.sagas[at] ?? {}
    const type = `saga_${definition % this.#shapes.size}`
    const { timeoutMs = 0 } = this.#shapes.get(type) ?? {}
    const saga = {
      sagaId: `s${at}`,
      type,
      defVersion: 1,
      firstStep: 'A',
      timeoutMs,
      input: { input: at },
      // Without one the engine would make one up, which is dear, and not ours to decide.
      traceparent: TRACEPARENT,
    }
    if (this.#database.sagas.has(saga.sagaId)) return
    const engine = startedBy === 'a process' ? this.#engines.get(this.#running(at)?.process) : undefined
    if (engine === undefined) {
      this.#scheduler.trace(`${saga.sagaId} is started as ${type}`)
      this.#database.start(saga)
      this.#hint()
      return
    }
    const { leaseTtlMs } = this.#scenario
    const { dispatcher, store } = engine
    // As `startAlone` of engine.ts.
    const offer = dispatcher.offer()
    store.start(saga, offer && { executorId: offer.executorId, leaseTtlMs }).then(
      (row) => {
        if (row === undefined) return
        if (offer === undefined) this.#hint()
        else dispatcher.take(row, offer)
      },
      () => undefined, // the caller asks again
    )
    this.#scheduler.after(ASKED_AGAIN_MS, { place: null, label: '', ring: () => this.#start(at) })
  }

  #isOver(): boolean {
    if (this.#auditor.violations.length > 0) return true
    if (this.#database.sagas.size < this.#scenario.sagas.length || !this.#scheduler.isQuiet) return false
    for (const row of this.#database.sagas.values()) if (!this.#auditor.isSettled(row)) return false
    return this.#processes.every((process) => process?.isFrozen !== true)
  }

  #launch(slot: number): void {
    this.#lastId += 1
    const name = `p${this.#lastId}`
    const process = new VirtualProcess({
      name,
      scheduler: this.#scheduler,
      database: this.#database,
      clockRate: this.#scenario.clocks[slot] ?? 1,
      learnsAtOnce: this.#scenario.trusts,
      newId: () => {
        this.#lastId += 1
        return `${name}.e${this.#lastId}`
      },
      onDeath: () => this.#bury(process, slot),
    })
    this.#processes[slot] = process
    this.#names.set(name, process)
    this.#scheduler.trace(`${process.name} starts`)
    const engine = this.#openEngine(process)
    this.#engines.set(process, engine)
    engine.dispatcher.run()
  }

  #bury(process: VirtualProcess, slot: number): void {
    this.#engines.delete(process)
    this.#scheduler.trace(`${process.name} is dead`)
    this.#scheduler.after(RESTART_MS, { place: null, label: '', ring: () => this.#launch(slot) })
  }

  /** As openSagas puts it together, without what reads views and listens for notifications. */
  #openEngine(process: VirtualProcess): Engine {
    const { leaseTtlMs, sweepMs, concurrency, trusts } = this.#scenario
    const store = remoteStore({ process, database: this.#database, scheduler: this.#scheduler })
    const surroundings = {
      shapes: this.#shapes,
      process,
      store,
      database: this.#database,
      outside: this.#outside,
    }
    const known = definitionsIn(surroundings)
    const room: Room<ModelTx> = {
      store,
      outbox: virtualOutbox(surroundings),
      log: this.#logOf(process),
      crash: {
        reach: (name) => (trusts ? Promise.resolve() : process.pause(`${process.name} at ${name}`)),
      },
      clock: process.clock,
      realClock: process.clock,
      leaseTtlMs,
      telemetry: this.#telemetry(),
      moved: (_row, { next }) => {
        if (next.kind === 'wait') dispatcher.wake(next.delayMs)
      },
    }
    const dispatcher = openDispatcher({
      room,
      executor: process.executor,
      keys: [...known.keys()].map((type) => `${type}:1`),
      knownOf: ({ type }) => {
        const one = known.get(type)
        if (one === undefined) throw new Error(`no definition of ${type}`)
        return one
      },
      concurrency,
      sweepMs,
    })
    return { dispatcher, store }
  }

  #telemetry(): Telemetry {
    const quiet = (): void => undefined
    return {
      started: quiet,
      ended: quiet,
      stepTook: quiet,
      failed: quiet,
      alarmed: (_row, _step, alarm) => this.#auditor.reached(`alarm: ${alarm}`),
    }
  }

  /** Errors of an engine are heard; a logger for each process would cost more than its sagas. */
  #logOf(process: VirtualProcess): Logger {
    const log: Logger = Object.create(this.#log)
    log.error = ({ event, err }: { event?: string; err?: unknown }) => {
      this.#scheduler.trace(`${process.name} logs ${event} ${err instanceof Error ? err.message : ''}`)
      if (!(err instanceof DatabaseUnavailable) && err !== undefined)
        this.#auditor.violated(`${process.name}: ${event}: ${String(err)}`)
      else if (event === 'saga.run_failed') this.#auditor.reached('run given up for want of a database')
    }
    return log
  }

  /** Something is due: told to every process, and lost on the way to some. */
  #hint(): void {
    for (const [process, { dispatcher }] of this.#engines) {
      if (process === undefined) continue
      this.#scheduler.add({
        label: '',
        kind: 'hint',
        place: process,
        faults: ['hint lost'],
        run: (fault) => {
          if (fault === undefined) dispatcher.wake()
        },
      })
    }
  }

  #running(draw: number): { process: VirtualProcess; slot: number } | undefined {
    const running = [...this.#processes.entries()].flatMap(([slot, process]) =>
      process?.isRunning ? [{ process, slot }] : [],
    )
    return running[draw % Math.max(1, running.length)]
  }

  #kill(draw: number): string | undefined {
    const target = this.#running(draw)
    if (target === undefined) return undefined
    target.process.die()
    return target.process.name
  }

  #freeze(draw: number): string | undefined {
    const target = this.#running(draw)
    if (target === undefined) return undefined
    const factors = [0.1, 0.5, 1.2, 1.2, 3]
    const ms = this.#scenario.leaseTtlMs * (factors[(draw >> 3) % factors.length] ?? 1)
    target.process.freeze(ms)
    return `${target.process.name} for ${ms} ms`
  }

  #cutOff(draw: number): string | undefined {
    const target = this.#running(draw)
    if (target === undefined) return undefined
    const factors = [0.5, 1.2, 1.2, 2]
    const ms = this.#scenario.leaseTtlMs * (factors[(draw >> 3) % factors.length] ?? 1)
    target.process.cutOffUntilMs = this.#scheduler.nowMs + ms
    return `${target.process.name} for ${ms} ms`
  }

  #loseSession(draw: number): string | undefined {
    const withSession = this.#processes.filter(
      (process) => process !== undefined && !process.isDead && process.hasSession && !process.isDeceived,
    )
    const process = withSession[draw % Math.max(1, withSession.length)]
    process?.loseSession()
    return process?.name
  }

  #stop(draw: number): string | undefined {
    const target = this.#running(draw)
    const dispatcher = this.#engines.get(target?.process)?.dispatcher
    if (target === undefined || dispatcher === undefined) return undefined
    void dispatcher
      .stop(3_000)
      .then(() => {
        this.#auditor.reached('stopped cleanly')
        target.process.die()
      })
      .catch((error: unknown) => this.#auditor.violated(`stop failed: ${String(error)}`))
    return target.process.name
  }

  #restartDatabase(): string {
    const { nowMs } = this.#scheduler
    this.#database.bootedAtMs = nowMs
    for (const process of this.#processes) {
      if (process === undefined || process.isDead) continue
      for (const [tx] of process.transactions) if (tx.isOpen) this.#database.rollback(tx)
      process.loseSession()
    }
    return 'all sessions lost'
  }
}
