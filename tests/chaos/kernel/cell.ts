import type { Complaint, Promised } from './auditor.ts'
import { keyOf, queuesOf } from './auditor.ts'
import { Cast } from './cast.ts'
import type { Cell } from './cells.ts'
import type { CellDatabase } from './lane.ts'
import { comesTrue } from './patience.ts'
import { describe, type Scene } from './scene.ts'
import { kernelTopology, type Wish } from './world.ts'

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

/** Eight sagas: of each definition two that succeed and two that turn back. Their keys end with the name and a number. */
export function wishesOf(name: string): Promised[] {
  return [`${name}-1`, `${name}-2`].flatMap((which): Promised[] => [
    {
      wish: { type: 'payment_purchase', input: { orderId: `paid-${which}`, planId: 'basic' } },
      end: 'COMPLETED',
    },
    {
      wish: { type: 'payment_purchase', input: { orderId: `declined-${which}`, planId: 'basic' } },
      end: 'COMPENSATED',
    },
    {
      wish: {
        type: 'thing_creation',
        input: { thingId: `wanted-${which}`, tenant: 'tenant', unwanted: false },
      },
      end: 'COMPLETED',
    },
    {
      wish: {
        type: 'thing_creation',
        input: { thingId: `unwanted-${which}`, tenant: 'tenant', unwanted: true },
      },
      end: 'COMPENSATED',
    },
  ])
}

/**
 * Carries a cell out on a scene and lets the auditor judge it. `nth`: the visit of the point at which the fault happens. A cell
 * that breaks down is a complaint like any other; after a complaint the scene is spoilt.
 */
export async function runCell(cell: Cell, scene: Scene, nth: number): Promise<CellResult> {
  const startedMs = performance.now()
  const cast = new Cast({ cell, scene, nth })
  const refusedBefore = refusedBy(scene)
  const result = (
    complaints: readonly Complaint[],
    times: Pick<CellResult, 'takeOverMs' | 'recoveryMs'>,
  ) => ({
    ...{ cell, fired: cast.fired, complaints, ...times },
    durationMs: performance.now() - startedMs,
    refused: refusedBy(scene) - refusedBefore,
  })
  try {
    const complaints = await play(cell, cast, scene)
    const recoveryMs = performance.now() - cast.faultAtMs
    complaints.push(...(await scene.judge()))
    return result(complaints, { recoveryMs, takeOverMs: await cast.takeOverMs() })
  } catch (error) {
    const text = `the cell broke down: ${describe(error)}`
    return result([{ kind: 'stuck', text }], { recoveryMs: 0, takeOverMs: undefined })
  } finally {
    // The fault's own work may still be bringing a server back.
    await cast.spent()
  }
}

function refusedBy({ books }: Scene): number {
  return books.history.filter(({ outcome }) => outcome === 'stale').length
}

async function play(cell: Cell, cast: Cast, scene: Scene): Promise<Complaint[]> {
  await cast.enter()
  const wishes = scene.begin(cell, wishesOf).map(({ wish }) => wish)
  // In two portions, so that two instances have something to do at once.
  for (const portion of [wishes.slice(0, wishes.length / 2), wishes.slice(wishes.length / 2)])
    await scene.insist({ verb: 'begin', wishes: portion })
  const complaints: Complaint[] = []
  if (!(await comesTrue(async () => cast.isStruck, REACH_WITHIN_MS)))
    complaints.push({
      kind: 'lost',
      text: `${cell.point} was reached ${cast.visits} times: the fault did not happen`,
    })
  await cast.recovered()
  if (!(await comesTrue(() => isSettled(scene.database.query, wishes), SETTLE_WITHIN_MS)))
    complaints.push({ kind: 'stuck', text: `not at rest ${SETTLE_WITHIN_MS} ms after the fault` })
  return complaints
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
