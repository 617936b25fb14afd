/* A process that runs sagas: its clock, its session, its life. What it awaits is a task of the scheduler, so that a dead
 * one never goes on, and a frozen one goes on when it thaws, with whatever it had read before. */
import type { Executor, ExecutorIdentity } from '@cloudphone/db/executor'
import type { Clock } from '@cloudphone/observe/clock'
import type { ModelDatabase, ModelTx } from './model-store.ts'
import type { Place, Scheduler } from './scheduler.ts'

export interface VirtualProcessOptions {
  readonly name: string
  readonly scheduler: Scheduler
  readonly database: ModelDatabase
  /** How fast its clock goes: 1 is right. */
  readonly clockRate: number
  /** The loss of its session is known to it at the very moment; otherwise some time later. */
  readonly learnsAtOnce: boolean
  readonly newId: () => string
  readonly onDeath: () => void
}

interface Held extends ExecutorIdentity {
  readonly over: AbortController
}

const RECONNECT_MS = 400
/** `idle_in_transaction_session_timeout` of our pools. */
const IDLE_IN_TRANSACTION_MS = 60_000

export class VirtualProcess implements Place {
  readonly name: string
  readonly clock: Clock
  readonly executor: Executor
  /** Transactions whose fate is still open, and whether their commit is under way. */
  readonly transactions = new Map<ModelTx, 'open' | 'committing'>()
  /** When it last went on after standing still. */
  thawedAtMs = Number.NEGATIVE_INFINITY
  /** Until when it cannot reach the database, though its session lives on there. */
  cutOffUntilMs = Number.NEGATIVE_INFINITY
  /** Its session is gone and it does not know. */
  isDeceived = false
  readonly #options: VirtualProcessOptions
  #state: 'running' | 'frozen' | 'dead' = 'running'
  #identity: Held | null = null
  #onIdentity: ((identity: ExecutorIdentity) => void)[] = []
  #onThaw: (() => void) | undefined
  readonly #asleep = new Set<() => void>()
  #isForgotten = false

  constructor(options: VirtualProcessOptions) {
    this.#options = options
    this.name = options.name
    this.clock = this.#openClock()
    this.#connect()
    this.executor = this.#openExecutor()
  }

  get isRunning(): boolean {
    return this.#state === 'running'
  }
  get isFrozen(): boolean {
    return this.#state === 'frozen'
  }
  get isDead(): boolean {
    return this.#state === 'dead'
  }
  get hasSession(): boolean {
    return this.#identity !== null
  }

  /** SIGKILL: nothing of it goes on, the server sees its sockets close. What it had sent is still on its way. */
  die(): void {
    if (this.isDead) return
    this.#state = 'dead'
    this.#dropSession()
    this.#rollBackOpen()
    this.#options.onDeath()
  }

  /** SIGSTOP, and SIGCONT after `ms`. Its sockets stay open. */
  freeze(ms: number): void {
    const { scheduler } = this.#options
    this.#state = 'frozen'
    if (ms > IDLE_IN_TRANSACTION_MS) {
      scheduler.after(IDLE_IN_TRANSACTION_MS, { place: null, label: '', ring: () => this.#rollBackOpen() })
    }
    scheduler.after(ms, {
      place: null,
      label: '',
      ring: () => {
        if (this.#state !== 'frozen') return
        this.#state = 'running'
        this.thawedAtMs = scheduler.nowMs
        scheduler.trace(`${this.name} goes on`)
        this.#onThaw?.()
        this.#onThaw = undefined
      },
    })
  }

  /** The server ends the session that holds the executor's lock; the process lives. */
  loseSession(): void {
    const identity = this.#identity
    if (identity === null || this.isDead || this.isDeceived) return
    const { scheduler, database, learnsAtOnce } = this.#options
    database.executors.delete(identity.id)
    this.isDeceived = true
    const learn = (): void => {
      if (this.isDead) return
      this.isDeceived = false
      this.#identity = null
      scheduler.after(RECONNECT_MS, {
        place: this,
        label: `${this.name} has a new session`,
        ring: () => this.#connect(),
      })
      identity.over.abort(new Error('session lost'))
    }
    if (!learnsAtOnce) {
      scheduler.add({
        label: `${this.name} learns of its lost session`,
        kind: 'store_reply',
        place: this,
        run: learn,
      })
    } else if (this.isFrozen) this.#onThaw = learn
    else learn()
  }

  /**
   * The schedule has been judged: whoever sleeps here leaves what he listens to. Node keeps a composed signal alive for as
   * long as somebody listens to it, and with it the whole world of a dead process.
   */
  forget(): void {
    this.#isForgotten = true
    for (const forget of this.#asleep) forget()
  }

  /** Any place at which it could be hit: an await that takes no time. */
  pause(label: string): Promise<void> {
    return new Promise((resolve) => {
      this.#options.scheduler.add({ label, kind: 'local', place: this, run: () => resolve() })
    })
  }

  #rollBackOpen(): void {
    for (const [tx, state] of this.transactions) {
      if (state === 'open' && tx.isOpen) this.#options.database.rollback(tx)
    }
  }

  #dropSession(): void {
    if (this.#identity !== null) this.#options.database.executors.delete(this.#identity.id)
    this.#identity = null
  }

  #connect(): void {
    if (this.isDead) return
    const over = new AbortController()
    const identity = { id: this.#options.newId(), lost: over.signal, over }
    this.#identity = identity
    this.#options.database.executors.add(identity.id)
    const waiting = this.#onIdentity
    this.#onIdentity = []
    for (const go of waiting) go(identity)
  }

  #openExecutor(): Executor {
    const current = (): ExecutorIdentity | null => this.#identity
    const close = async (): Promise<void> => this.#dropSession()
    return {
      get current() {
        return current()
      },
      held: () => {
        const identity = this.#identity
        if (identity !== null) return Promise.resolve(identity)
        return new Promise((resolve) => {
          this.#onIdentity.push(resolve)
        })
      },
      close,
      [Symbol.asyncDispose]: close,
    }
  }

  #openClock(): Clock {
    const { scheduler, clockRate } = this.#options
    return {
      now: () => new Date(scheduler.nowMs),
      monotonicMs: () => scheduler.nowMs * clockRate,
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          if (this.#isForgotten) return
          if (signal?.aborted) return reject(signal.reason)
          const awake = (): void => {
            this.#asleep.delete(forget)
            signal?.removeEventListener('abort', abort)
          }
          const abort = (): void => {
            cancel()
            awake()
            reject(signal?.reason)
          }
          const cancel = scheduler.after(ms / clockRate, {
            place: this,
            label: '',
            ring: () => {
              awake()
              resolve()
            },
          })
          const forget = (): void => {
            awake()
            reject(new Error('the schedule is over'))
          }
          this.#asleep.add(forget)
          signal?.addEventListener('abort', abort, { once: true })
        }),
    }
  }
}
