import { setTimeout as sleep } from 'node:timers/promises'
import type { QueueStatistics } from '@cloudphone/bus/bus'
import { silentLog } from '@cloudphone/observe/log'
import { audit, type Complaint, type Promised } from './auditor.ts'
import { type Cell, timing } from './cells.ts'
import type { Crew, Watcher, Worker } from './crew.ts'
import { type CellDatabase, type Lane, ROLES } from './lane.ts'
import type { Order } from './orders.ts'
import { comesTrue, within } from './patience.ts'
import { openPayer, type Payer } from './payer.ts'
import type { Provider, ProviderBooks } from './provider.ts'
import { type BusPlace, openBus } from './world.ts'

/** Where scenes are set. */
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

/** Whom a cell needs at work, and what the drill has to say when one of them reaches the point. */
export interface Cue {
  readonly instances: number
  readonly point: string
  readonly watcher: Watcher
}

/** As many as the pool of devices of a scene is good for: each cell leaves two in use. */
const CELLS_A_SCENE = 12
const CLOSE_WITHIN_MS = 10_000
const ANSWER_WITHIN_MS = 60_000
/** The acknowledgements of what has had its effects may still be on their way to the broker. */
const EMPTY_WITHIN_MS = 5_000

/** @throws Error in a cell without RabbitMQ. */
export function brokerOf({ broker }: Ground): Broker {
  if (broker === undefined) throw new Error('this cell needs RabbitMQ')
  return broker
}

/**
 * A database, the provider's books, and workers whose worlds are open on them. Cells are played on it one after the other, for
 * as long as all goes well: to set it costs more than a cell. The auditor judges all that has ever happened on it.
 */
export class Scene {
  readonly ground: Ground
  readonly database: CellDatabase
  readonly bus: BusPlace
  readonly books: ProviderBooks
  /** Of all cells so far. */
  readonly promised: Promised[] = []
  readonly #payer: Payer
  readonly #workers: (Worker | undefined)[] = ROLES.map(() => undefined)
  #cells = 0
  #mayOvertake = false
  #isOver = false

  static async set(ground: Ground, bus: Cell['bus']): Promise<Scene> {
    const place: BusPlace =
      bus === 'embedded' ? { kind: 'embedded' } : { kind: 'rabbitmq', url: await brokerOf(ground).url() }
    return new Scene(ground, place, await ground.lane.database())
  }

  private constructor(ground: Ground, bus: BusPlace, database: CellDatabase) {
    this.ground = ground
    this.bus = bus
    this.database = database
    this.books = ground.provider.open()
    this.#payer = openPayer({
      query: database.query,
      deliver: (callback) => this.insist({ verb: 'callback', callback }),
      pays: (orderId) => orderId.startsWith('paid'),
    })
  }

  /** Whether the next cell needs another scene. */
  get isSpent(): boolean {
    return this.#cells >= CELLS_A_SCENE || this.#mayOvertake
  }

  /** Counts a cell; resolves with what it may promise, under keys that no other has. */
  begin(cell: Cell, wishesOf: (name: string) => Promised[]): Promised[] {
    this.#cells += 1
    this.#mayOvertake ||= mayOvertake(cell)
    const promised = wishesOf(String(this.#cells))
    this.promised.push(...promised)
    return promised
  }

  living(): Worker[] {
    return this.#workers.filter((worker) => worker !== undefined && !worker.hasEnded) as Worker[]
  }

  /** Sees to it that as many worlds are open as a cell needs, and that each asks at the point. */
  async cue({ instances, point, watcher }: Cue): Promise<void> {
    for (const surplus of this.living().slice(instances)) {
      const [complaint] = await this.#close(surplus)
      if (complaint !== undefined) throw new Error(complaint.text)
    }
    await Promise.all(
      this.living().map(async (worker) => {
        worker.watch(watcher)
        await worker.order({ verb: 'arm', point })
      }),
    )
    const missing = instances - this.living().length
    await Promise.all(Array.from({ length: missing }, () => this.employ({ point, watcher })))
  }

  /** Opens one more world, which asks at the point, if there is one, from its first breath. */
  async employ({ point, watcher }: { point: string | undefined; watcher: Watcher }): Promise<void> {
    const worker = await this.ground.crew.take()
    const slot = this.#workers.findIndex((one) => one === undefined || one.hasEnded)
    this.#workers[slot] = worker
    worker.watch(watcher)
    await worker.order({ verb: 'arm', point })
    const world = {
      ...{ url: this.database.target(slot), bus: this.bus },
      ...{ providerUrl: this.books.url, timing },
    }
    await worker.order({ verb: 'open', world })
  }

  /** Terminates a worker's backends; resolves with how many there were. */
  async terminate(worker: Worker): Promise<number> {
    return await this.database.terminate(this.#workers.indexOf(worker))
  }

  /**
   * As a client does that was left without an answer: asks again, whoever is there.
   * @throws Error when there has been no answer for a minute.
   */
  async insist(order: Order): Promise<void> {
    const untilMs = performance.now() + ANSWER_WITHIN_MS
    let reason: unknown = 'nobody is there'
    for (let turn = 0; performance.now() < untilMs && !this.#isOver; turn += 1) {
      const living = this.living()
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

  async judge(): Promise<Complaint[]> {
    let left: QueueStatistics[] = []
    await comesTrue(async () => {
      left = await leftIn(this.bus, this.database)
      return left.every(({ ready, delayed, inFlight }) => ready + delayed + inFlight === 0)
    }, EMPTY_WITHIN_MS)
    return await audit({
      ...{ query: this.database.query, bus: { statistics: async () => left } },
      ...{ history: this.books.history, promised: this.promised, mayOvertake: this.#mayOvertake },
    })
  }

  /**
   * Closes the worlds in good order and has everything judged for the last time, now that nothing is under way any more. Of a
   * scene that is `spoilt` already nothing more is asked.
   */
  async strike({ isSpoilt }: { isSpoilt: boolean }): Promise<Complaint[]> {
    try {
      if (isSpoilt) return []
      await this.#payer.close()
      const ends = await Promise.all(this.living().map((worker) => this.#close(worker)))
      return [...ends.flat(), ...(await this.judge())]
    } catch (error) {
      return [{ kind: 'stuck', text: `the scene broke down: ${describe(error)}` }]
    } finally {
      await this.#clear(isSpoilt)
    }
  }

  async #clear(isSpoilt: boolean): Promise<void> {
    this.#isOver = true
    for (const worker of this.living()) {
      worker.signal('SIGKILL')
      await worker.ended
    }
    // Once nobody is there to answer it: its own failure is part of what spoilt the scene.
    await this.#payer.close().catch(() => undefined)
    if (isSpoilt) this.ground.broker?.spoil()
    this.books.close()
    await this.database.drop()
  }

  async #close(worker: Worker): Promise<Complaint[]> {
    try {
      await within(worker.order({ verb: 'close' }), CLOSE_WITHIN_MS)
      this.#workers[this.#workers.indexOf(worker)] = undefined
      this.ground.crew.giveBack(worker)
      return []
    } catch (error) {
      return [{ kind: 'stuck', text: `a worker does not close: ${String(error)}` }]
    }
  }
}

export function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}

/** Over RabbitMQ a delivery that is tried again is overtaken: that is the adapter's word, and no complaint. */
function mayOvertake({ point, fault, bus }: Cell): boolean {
  return bus === 'rabbitmq' && fault === 'throw' && point.startsWith('consumer.')
}

/** What the broker still holds. The tables of the embedded bus are asked directly: opening a bus for it costs six connections. */
async function leftIn(bus: BusPlace, { query, target }: CellDatabase): Promise<QueueStatistics[]> {
  if (bus.kind === 'embedded')
    return await query<QueueStatistics>(`
      select queue, count(*) filter (where kind = 'left')::integer as ready, 0 as delayed, 0 as "inFlight",
        count(*) filter (where kind = 'dead')::integer as dead
      from (select queue, 'left' as kind from bus.bus_delivery
        union all select queue, 'dead' from bus.bus_dead_letter) d group by queue`)
  const observer = openBus({ url: target(0), bus, timing, log: silentLog() })
  try {
    return [...(await observer.statistics())]
  } finally {
    await observer.close()
  }
}
