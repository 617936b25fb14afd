import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { CrashAct } from '@cloudphone/observe/crash-point'
import type { Complaint } from './auditor.ts'
import { type Cell, FROZEN_MS, HANG_MS, timing } from './cells.ts'
import type { Crew, Worker } from './crew.ts'
import type { CellDatabase, Lane } from './lane.ts'
import type { Order } from './orders.ts'
import { comesTrue, within } from './patience.ts'
import type { Provider } from './provider.ts'
import type { BusPlace } from './world.ts'

/** Where cells are run. */
export interface Ground {
  readonly lane: Lane
  readonly crew: Crew
  readonly provider: Provider
  /** The broker, where a cell needs one. */
  readonly broker?: Broker | undefined
}

/** A RabbitMQ that a cell may kill. */
export interface Broker {
  /** An empty virtual host. */
  readonly url: () => Promise<string>
  kill(): Promise<void>
  start(): Promise<void>
  /** The virtual host may hold what a failed cell has left. */
  spoil(): void
}

const CLOSE_WITHIN_MS = 10_000
const ANSWER_WITHIN_MS = 60_000

/** @throws Error in a cell without RabbitMQ. */
export function brokerOf({ broker }: Ground): Broker {
  if (broker === undefined) throw new Error('this cell needs RabbitMQ')
  return broker
}

export interface CastOptions {
  readonly cell: Cell
  readonly ground: Ground
  readonly nth: number
  readonly database: CellDatabase
  readonly bus: BusPlace
  readonly providerUrl: string
}

/** The workers of a cell, what befalls them, and who comes in their place. */
export class Cast {
  readonly #options: CastOptions
  readonly #workers: Worker[] = []
  readonly #aftermath: Promise<void>[] = []
  #visits = 0
  #begun = 0
  #inHand: { id: string; fence: number }[] = []
  #wallMs = 0
  fired = 0
  faultAtMs = performance.now()

  constructor(options: CastOptions) {
    this.#options = options
  }

  get visits(): number {
    return this.#visits
  }

  /** Whether the fault has begun as often as it should. */
  get isStruck(): boolean {
    return this.#begun === this.#options.cell.times
  }

  /** Opens the worlds of the cell's instances. */
  async enter(): Promise<void> {
    const { instances, point } = this.#options.cell
    await Promise.all(Array.from({ length: instances }, () => this.#employ(point)))
  }

  /** Resolves when what the fault has brought with it is over: a successor is at work, a server is back. */
  async recovered(): Promise<void> {
    await Promise.all(this.#aftermath)
  }

  /** Closes what lives in good order, so that nothing is still under way when the auditor looks. */
  async endWorlds(): Promise<Complaint[]> {
    const ends = await Promise.all(
      this.#living().map(async (worker): Promise<Complaint[]> => {
        try {
          await within(worker.order({ verb: 'close' }), CLOSE_WITHIN_MS)
          this.#workers.splice(this.#workers.indexOf(worker), 1)
          this.#options.ground.crew.giveBack(worker)
          return []
        } catch (error) {
          return [{ kind: 'stuck', text: `a worker does not close: ${String(error)}` }]
        }
      }),
    )
    return ends.flat()
  }

  /** Kills whoever is left. */
  async dismiss(): Promise<void> {
    for (const worker of this.#workers) {
      worker.signal('SIGKILL')
      await worker.ended
    }
    // The fault's own work may still be bringing a server back.
    await Promise.allSettled(this.#aftermath)
  }

  /** How long the slowest of the victim's sagas waited for its next owner; undefined when none changed hands. */
  async takeOverMs(): Promise<number | undefined> {
    const { fault, instances, times } = this.#options.cell
    const losesHold = ['kill', 'stop', 'terminate', 'postgres'].includes(fault)
    if (!losesHold || instances === 1 || times === 2 || this.#inHand.length === 0) return undefined
    const rows = await this.#options.database.query<{ at: number | null }>(
      `select (select extract(epoch from min(l.started_at)) * 1000 from saga_step_log l
         where l.saga_id = held.id and l.fence > held.fence)::float8 as at
       from unnest($1::text[], $2::bigint[]) as held (id, fence)`,
      [this.#inHand.map(({ id }) => id), this.#inHand.map(({ fence }) => fence)],
    )
    const waits = rows.flatMap(({ at }) => (at === null ? [] : [at - this.#wallMs]))
    return waits.length === 0 ? undefined : Math.max(0, ...waits)
  }

  #living(): Worker[] {
    return this.#workers.filter((worker) => !worker.hasEnded)
  }

  async #employ(point: string | undefined): Promise<void> {
    const { ground, database, bus, providerUrl } = this.#options
    const worker = await ground.crew.take()
    const number = this.#workers.push(worker) - 1
    worker.watch((_, executorId) => this.#reached(worker, number, executorId))
    const place = { url: database.target(number), bus, providerUrl, timing }
    await worker.order({ verb: 'open', world: point === undefined ? place : { ...place, point } })
  }

  /** A worker stands at the point: the fault happens at the nth visit of all. */
  async #reached(worker: Worker, number: number, executorId: string | null): Promise<CrashAct> {
    const { cell, nth, database } = this.#options
    this.#visits += 1
    const isDue = this.#begun === 0 ? this.#visits >= nth : this.#begun < cell.times
    if (!isDue) return 'go'
    this.#begun += 1
    this.#inHand = await database.query<{ id: string; fence: number }>(
      'select saga_id as id, fence from saga_state where lease_owner = $1 and ended_at is null',
      [executorId],
    )
    this.faultAtMs = performance.now()
    this.#wallMs = Date.now()
    return await this.#act(worker, number)
  }

  async #act(worker: Worker, number: number): Promise<CrashAct> {
    const { cell, ground, database } = this.#options
    switch (cell.fault) {
      case 'kill':
        this.#after(this.#replace(worker))
        return 'kill'
      case 'stop':
        this.#after(this.#thaw(worker))
        return 'stop'
      case 'throw':
        this.fired += 1
        return 'throw'
      case 'hang':
        this.fired += 1
        return `hang=${HANG_MS}`
      case 'terminate':
        if ((await database.terminate(number)) > 0) this.fired += 1
        return 'go'
      case 'postgres':
        await ground.lane.crash()
        this.fired += 1
        this.#after(ground.lane.start())
        return 'go'
      case 'rabbitmq':
        await brokerOf(ground).kill()
        this.fired += 1
        this.#after(brokerOf(ground).start())
        return 'go'
    }
  }

  #after(work: Promise<void>): void {
    // Awaited in `recovered`; until then its failure is nobody's.
    work.catch(() => undefined)
    this.#aftermath.push(work)
  }

  async #replace(victim: Worker): Promise<void> {
    if ((await victim.ended) !== 'SIGKILL') throw new Error(`worker ${victim.pid} was not killed`)
    this.fired += 1
    const { cell } = this.#options
    if (this.#living().length === 0) await this.#employ(this.#begun < cell.times ? cell.point : undefined)
  }

  async #thaw(victim: Worker): Promise<void> {
    const isFrozen = async (): Promise<boolean> =>
      /\) T /.test(await readFile(`/proc/${victim.pid}/stat`, 'utf8'))
    if (await comesTrue(isFrozen, 5_000)) this.fired += 1
    await sleep(FROZEN_MS)
    victim.signal('SIGCONT')
  }

  /**
   * As a client does that was left without an answer: asks again, whoever is there.
   * @throws Error when there has been no answer for a minute.
   */
  async insist(order: Order): Promise<void> {
    const untilMs = performance.now() + ANSWER_WITHIN_MS
    let reason: unknown = 'nobody is there'
    for (let turn = 0; performance.now() < untilMs; turn += 1) {
      const living = this.#living()
      const worker = living[turn % Math.max(1, living.length)]
      try {
        if (worker !== undefined) return await within(worker.order(order), 1_500)
      } catch (error) {
        reason = error
      }
      await sleep(50)
    }
    throw new Error(`no answer to ${order.verb} within ${ANSWER_WITHIN_MS} ms`, { cause: reason })
  }
}
