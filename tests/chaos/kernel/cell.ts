import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { QueueStatistics } from '@cloudphone/bus/bus'
import type { CrashAct } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { audit, type Complaint, keyOf, type Promised, queuesOf } from './auditor.ts'
import { type Cell, FROZEN_MS, HANG_MS, timing } from './cells.ts'
import type { Crew, Worker } from './crew.ts'
import type { CellDatabase, Lane } from './lane.ts'
import { openPayer } from './payer.ts'
import type { Provider } from './provider.ts'
import { type BusPlace, kernelTopology, openBus, type Wish } from './world.ts'

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

export interface CellResult {
  readonly cell: Cell
  /** How often the fault is proven to have happened. */
  readonly fired: number
  readonly complaints: readonly Complaint[]
  /**
   * From the fault until the last saga that was in the victim's hands was in somebody's again. Only where the fault takes it
   * out of those hands, and another instance is there to take it.
   */
  readonly takeOverMs: number | undefined
  /** From the fault until nothing was left to do. */
  readonly recoveryMs: number
  readonly durationMs: number
  /** Effects that a zombie tried and the provider refused. */
  readonly refused: number
}

// Of a machine that others use too. A broker that was killed takes tens of seconds there to be back.
const SETTLE_WITHIN_MS = 60_000
const REACH_WITHIN_MS = 15_000
const CLOSE_WITHIN_MS = 10_000

/** Eight sagas: of each definition two that succeed and two that turn back. */
export function wishesOf(): Promised[] {
  const numbers = [1, 2]
  return numbers.flatMap((number): Promised[] => [
    {
      wish: { type: 'payment_purchase', input: { orderId: `paid-${number}`, planId: 'basic' } },
      end: 'COMPLETED',
    },
    {
      wish: { type: 'payment_purchase', input: { orderId: `declined-${number}`, planId: 'basic' } },
      end: 'COMPENSATED',
    },
    {
      wish: {
        type: 'thing_creation',
        input: { thingId: `wanted-${number}`, tenant: 'tenant', unwanted: false },
      },
      end: 'COMPLETED',
    },
    {
      wish: {
        type: 'thing_creation',
        input: { thingId: `unwanted-${number}`, tenant: 'tenant', unwanted: true },
      },
      end: 'COMPENSATED',
    },
  ])
}

/**
 * Carries a cell out and lets the auditor judge it. `nth`: the visit of the point at which the fault happens. A cell that
 * breaks down is a complaint like any other.
 */
export async function runCell(cell: Cell, ground: Ground, nth: number): Promise<CellResult> {
  const startedMs = performance.now()
  const database = await ground.lane.database()
  const books = ground.provider.open()
  const bus: BusPlace =
    cell.bus === 'embedded' ? { kind: 'embedded' } : { kind: 'rabbitmq', url: await brokerOf(ground).url() }
  const run = new Run({ cell, ground, nth, database, bus, providerUrl: books.url })
  const refused = () => books.history.filter(({ outcome }) => outcome === 'stale').length
  try {
    const promised = wishesOf()
    const complaints = await run.play(promised)
    const recoveryMs = performance.now() - run.faultAtMs
    complaints.push(...(await run.endWorlds()))
    const left = await leftIn(bus, database)
    const evidence = { query: database.query, left, history: books.history, promised }
    complaints.push(...(await audit({ ...evidence, mayOvertake: mayOvertake(cell) })))
    run.isSpoilt = complaints.length > 0
    return {
      cell,
      fired: run.fired,
      complaints,
      takeOverMs: await run.takeOverMs(),
      recoveryMs,
      durationMs: performance.now() - startedMs,
      refused: refused(),
    }
  } catch (error) {
    const text = `the cell broke down: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    return {
      ...{ cell, fired: run.fired, complaints: [{ kind: 'stuck', text }], takeOverMs: undefined },
      ...{ recoveryMs: 0, durationMs: performance.now() - startedMs, refused: refused() },
    }
  } finally {
    await run.dismiss()
    if (run.isSpoilt) ground.broker?.spoil()
    books.close()
    await database.drop()
  }
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

/** Over RabbitMQ a delivery that is tried again is overtaken: that is the adapter's word, and no complaint. */
function mayOvertake({ point, fault, bus }: Cell): boolean {
  return bus === 'rabbitmq' && fault === 'throw' && point.startsWith('consumer.')
}

function brokerOf({ broker }: Ground): Broker {
  if (broker === undefined) throw new Error('this cell needs RabbitMQ')
  return broker
}

interface RunOptions {
  readonly cell: Cell
  readonly ground: Ground
  readonly nth: number
  readonly database: CellDatabase
  readonly bus: BusPlace
  readonly providerUrl: string
}

class Run {
  readonly #options: RunOptions
  readonly #workers: Worker[] = []
  readonly #aftermath: Promise<void>[] = []
  #visits = 0
  #begun = 0
  #inHand: { id: string; fence: number }[] = []
  #wallMs = 0
  fired = 0
  isSpoilt = true
  faultAtMs = performance.now()

  constructor(options: RunOptions) {
    this.#options = options
  }

  /** Plays the cell to its end; resolves with what went wrong on the way. */
  async play(promised: readonly Promised[]): Promise<Complaint[]> {
    const { cell, database } = this.#options
    await Promise.all(Array.from({ length: cell.instances }, () => this.#employ(cell.point)))
    const payer = openPayer({
      query: database.query,
      deliver: (callback) => this.#insist({ verb: 'callback', callback }),
      pays: (orderId) => orderId.startsWith('paid'),
    })
    try {
      const wishes = promised.map(({ wish }) => wish)
      const half = Math.ceil(wishes.length / cell.instances)
      for (let from = 0; from < wishes.length; from += half)
        await this.#insist({ verb: 'begin', wishes: wishes.slice(from, from + half) })
      const complaints: Complaint[] = []
      if (!(await this.#until(async () => this.#begun === cell.times, REACH_WITHIN_MS)))
        complaints.push({
          kind: 'lost',
          text: `${cell.point} was reached ${this.#visits} times: the fault did not happen`,
        })
      await Promise.all(this.#aftermath)
      if (!(await this.#until(() => this.#isSettled(wishes), SETTLE_WITHIN_MS)))
        complaints.push({ kind: 'stuck', text: `not at rest ${SETTLE_WITHIN_MS} ms after the fault` })
      return complaints
    } finally {
      await payer.close()
    }
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
    // Awaited in `play`; until then its failure is nobody's.
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
    if (await this.#until(isFrozen, 5_000)) this.fired += 1
    await sleep(FROZEN_MS)
    victim.signal('SIGCONT')
  }

  /** As a client does that was left without an answer: asks again, whoever is there. */
  async #insist(order: Parameters<Worker['order']>[0]): Promise<void> {
    for (let turn = 0; ; turn += 1) {
      const living = this.#living()
      const worker = living[turn % Math.max(1, living.length)]
      try {
        if (worker !== undefined) return await within(worker.order(order), 1_500)
      } catch (error) {
        if (turn > 100) throw error
      }
      await sleep(50)
    }
  }

  async #until(look: () => Promise<boolean>, withinMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + withinMs
    while (performance.now() < deadlineMs) {
      if (await look()) return true
      await sleep(40)
    }
    return false
  }

  async #isSettled(wishes: readonly Wish[]): Promise<boolean> {
    return await isSettled(this.#options.database.query, wishes)
  }
}

/** Whether every wish has ended and every event has had its effects. */
export async function isSettled(query: CellDatabase['query'], wishes: readonly Wish[]): Promise<boolean> {
  const [found] = await query<{ settled: boolean }>(SETTLED, [wishes.map(keyOf), ...heard])
  return found?.settled === true
}

const heardBy = [...new Set(kernelTopology.flatMap(({ events }) => events.map(({ name }) => name)))]
const heard = [heardBy, heardBy.map((name) => queuesOf(name).length)] as const

const SETTLED = `
  select (select count(*) from saga_state where business_key = any($1::text[]) and ended_at is not null)
      = cardinality($1::text[])
    and not exists (select from saga_state where ended_at is null)
    and not exists (select from event_outbox where status <> 'published')
    and (select count(distinct (queue, event_id)) from effect)
      >= (select sum(heard.queues) from event_outbox e
          join unnest($2::text[], $3::integer[]) as heard (type, queues) on heard.type = e.event_type)
    and not exists (select from bus.bus_delivery) as settled`

async function within(work: Promise<void>, ms: number): Promise<void> {
  const over = new AbortController()
  try {
    await Promise.race([
      work,
      sleep(ms, undefined, { signal: over.signal }).then(() => {
        throw new Error(`no answer within ${ms} ms`)
      }),
    ])
  } finally {
    over.abort()
  }
}
