import type { QueueStatistics } from '@cloudphone/bus/bus'
import { silentLog } from '@cloudphone/observe/log'
import { audit, type Complaint, keyOf, type Promised, queuesOf } from './auditor.ts'
import { brokerOf, Cast, type Ground } from './cast.ts'
import { type Cell, timing } from './cells.ts'
import type { CellDatabase } from './lane.ts'
import { comesTrue } from './patience.ts'
import { openPayer } from './payer.ts'
import { type BusPlace, kernelTopology, openBus, type Wish } from './world.ts'

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
const REACH_WITHIN_MS = 60_000

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
  const cast = new Cast({ cell, ground, nth, database, bus, providerUrl: books.url })
  let isSpoilt = true
  const refused = () => books.history.filter(({ outcome }) => outcome === 'stale').length
  try {
    const promised = wishesOf()
    const complaints = await play(cell, cast, { query: database.query, promised })
    const recoveryMs = performance.now() - cast.faultAtMs
    complaints.push(...(await cast.endWorlds()))
    const broker = { statistics: () => leftIn(bus, database) }
    const evidence = { query: database.query, bus: broker, history: books.history, promised }
    complaints.push(...(await audit({ ...evidence, mayOvertake: mayOvertake(cell) })))
    isSpoilt = complaints.length > 0
    return {
      cell,
      fired: cast.fired,
      complaints,
      takeOverMs: await cast.takeOverMs(),
      recoveryMs,
      durationMs: performance.now() - startedMs,
      refused: refused(),
    }
  } catch (error) {
    const text = `the cell broke down: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`
    return {
      ...{ cell, fired: cast.fired, complaints: [{ kind: 'stuck', text }], takeOverMs: undefined },
      ...{ recoveryMs: 0, durationMs: performance.now() - startedMs, refused: refused() },
    }
  } finally {
    await cast.dismiss()
    if (isSpoilt) ground.broker?.spoil()
    books.close()
    await database.drop()
  }
}

async function play(
  { point }: Cell,
  cast: Cast,
  { query, promised }: { query: CellDatabase['query']; promised: readonly Promised[] },
): Promise<Complaint[]> {
  await cast.enter()
  const payer = openPayer({
    query,
    deliver: (callback) => cast.insist({ verb: 'callback', callback }),
    pays: (orderId) => orderId.startsWith('paid'),
  })
  try {
    const wishes = promised.map(({ wish }) => wish)
    // In two portions, so that two instances have something to do at once.
    for (const portion of [wishes.slice(0, wishes.length / 2), wishes.slice(wishes.length / 2)])
      await cast.insist({ verb: 'begin', wishes: portion })
    const complaints: Complaint[] = []
    if (!(await comesTrue(async () => cast.isStruck, REACH_WITHIN_MS)))
      complaints.push({
        kind: 'lost',
        text: `${point} was reached ${cast.visits} times: the fault did not happen`,
      })
    await cast.recovered()
    if (!(await comesTrue(() => isSettled(query, wishes), SETTLE_WITHIN_MS)))
      complaints.push({ kind: 'stuck', text: `not at rest ${SETTLE_WITHIN_MS} ms after the fault` })
    return complaints
  } finally {
    await payer.close()
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

/** Whether every wish has ended and every event has had its effects, as far as the database can tell. */
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
