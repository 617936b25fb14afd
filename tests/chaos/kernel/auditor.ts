/* Judges a world after its sagas have ended, by what an outsider can see: the database, the provider's books and the broker.
 * It never asks a worker. */
import type { Bus } from '@cloudphone/bus/bus'
import type { CellDatabase } from './lane.ts'
import type { Touch } from './provider.ts'
import { kernelTopology, type Wish } from './world.ts'

/**
 * - `lost`: something that was promised is not there
 * - `doubled`: something is there twice, or happened twice
 * - `leaked`: something is there that nobody owns
 * - `disordered`: events of one aggregate were applied in another order than they were written
 * - `stale`: somebody acted under a fence after a newer one had acted
 * - `stuck`: a saga has not ended
 */
export interface Complaint {
  readonly kind: 'lost' | 'doubled' | 'leaked' | 'disordered' | 'stale' | 'stuck'
  readonly text: string
}

/** What somebody was promised, and how it should end when no fault is the wish's own. */
export interface Promised {
  readonly wish: Wish
  readonly end: 'COMPLETED' | 'COMPENSATED'
}

export interface Evidence {
  readonly query: CellDatabase['query']
  /** What the broker still holds after everybody has closed. */
  readonly bus: Pick<Bus, 'statistics'>
  readonly history: readonly Touch[]
  readonly promised: readonly Promised[]
  /** The bus may let an event overtake one of its aggregate that is tried again. */
  readonly mayOvertake?: boolean
}

interface SagaFound {
  readonly id: string
  readonly key: string
  readonly status: string
  readonly error: string | null
}

export async function audit(evidence: Evidence): Promise<Complaint[]> {
  const sagas = await evidence.query<SagaFound>(
    'select saga_id as id, business_key as key, status, error_message as error from saga_state',
  )
  return [
    ...judgeEnds(evidence.promised, sagas),
    ...(await judgeSteps(evidence)),
    ...judgeProvider(evidence.history, sagas),
    ...(await judgePurchases(evidence, sagas)),
    ...(await judgeCreations(evidence, sagas)),
    ...(await judgeEvents(evidence)),
  ]
}

/** I1: every saga that was promised ends, and as it should: a fault of the machinery is no reason to turn back. */
function judgeEnds(promised: readonly Promised[], sagas: readonly SagaFound[]): Complaint[] {
  return promised.flatMap(({ wish, end }): Complaint[] => {
    const key = keyOf(wish)
    const found = sagas.filter((one) => one.key === key)
    const [saga] = found
    if (saga === undefined) return [{ kind: 'lost', text: `${wish.type} ${key} was promised and never was` }]
    if (found.length > 1) return [{ kind: 'doubled', text: `${key} has ${found.length} sagas` }]
    if (saga.status === end) return []
    const isEnded = saga.status === 'COMPLETED' || saga.status === 'COMPENSATED'
    return [
      {
        kind: isEnded ? 'lost' : 'stuck',
        text: `${saga.id} is ${saga.status} and not ${end}: ${saga.error ?? 'no error'}`,
      },
    ]
  })
}

export function keyOf({ type, input }: Wish): string {
  return type === 'payment_purchase' ? input.orderId : input.thingId
}

/** I3 as the log has it: a step is done once in each direction, and never under an older fence than the entry before. */
async function judgeSteps({ query }: Evidence): Promise<Complaint[]> {
  const twice = await query<{ saga: string; step: string; direction: string; times: number }>(`
    select saga_id as saga, step, direction, count(*)::integer as times from saga_step_log
    where status = 'done' group by 1, 2, 3 having count(*) > 1`)
  const back = await query<{ saga: string; step: string; fence: number; before: number }>(`
    select * from (select saga_id as saga, step, fence, lag(fence) over (partition by saga_id order by id) as before
      from saga_step_log where status <> 'refused') entry where fence < before`)
  return [
    ...twice.map(
      ({ saga, step, direction, times }): Complaint => ({
        kind: 'doubled',
        text: `${saga}: ${step} (${direction}) was done ${times} times`,
      }),
    ),
    ...back.map(
      ({ saga, step, fence, before }): Complaint => ({
        kind: 'stale',
        text: `${saga}: ${step} was recorded under fence ${fence} after ${before}`,
      }),
    ),
  ]
}

/** I2, I3 and I6 by the provider's history: what was carried out, under which fence, and who held what at each instant. */
function judgeProvider(history: readonly Touch[], sagas: readonly SagaFound[]): Complaint[] {
  const complaints: Complaint[] = []
  const fences = new Map<string, number>()
  const alive = new Map<string, Touch>()
  const made = new Map<string, number>()
  for (const touch of history) {
    const { outcome, owner, fence, key, kind, number } = touch
    if (outcome === 'stale') continue
    const say = (kind: Complaint['kind'], text: string) => complaints.push({ kind, text: `${key}: ${text}` })
    if (outcome === 'gone') say('stale', `asked for again under fence ${fence} after its own undo`)
    if (fence < (fences.get(owner) ?? 0)) say('stale', `${touch.op} under fence ${fence} after a newer one`)
    fences.set(owner, Math.max(fence, fences.get(owner) ?? 0))
    if (outcome === 'destroyed') alive.delete(key)
    if (outcome !== 'created') continue
    made.set(key, (made.get(key) ?? 0) + 1)
    const rival = [...alive.values()].find((one) => one.kind === kind && one.number === number)
    if (rival !== undefined) say('doubled', `${kind} ${number} is ${rival.key}'s already`)
    alive.set(key, touch)
  }
  for (const [key, times] of made)
    if (times > 1) complaints.push({ kind: 'doubled', text: `${key} was created ${times} times` })
  return [...complaints, ...judgeHoldings([...alive.values()], sagas)]
}

/** What a finished saga of each type holds at the provider. */
const HOLDINGS = { payment_purchase: ['payment'], thing_creation: ['resource', 'port'] } as const

function judgeHoldings(alive: readonly Touch[], sagas: readonly SagaFound[]): Complaint[] {
  const wanted = sagas
    .filter(({ status }) => status === 'COMPLETED')
    .flatMap(({ id }) => {
      const type = id.startsWith('payment_purchase') ? 'payment_purchase' : 'thing_creation'
      return HOLDINGS[type].map((kind) => `${id} ${kind}`)
    })
  const held = alive.map(({ owner, kind }) => `${owner} ${kind}`)
  return compare(wanted, held, 'at the provider')
}

/** I2, I8: what a purchase leaves: its order, its device, its money. */
async function judgePurchases({ query }: Evidence, sagas: readonly SagaFound[]): Promise<Complaint[]> {
  const mine = sagas.filter(({ id }) => id.startsWith('payment_purchase'))
  const good = mine.filter(({ status }) => status === 'COMPLETED').map(({ key }) => key)
  const orders = await query<{ id: string; status: string }>('select id, status from purchase_order')
  const devices = await query<{ order: string }>(
    'select order_id as "order" from pool_device where order_id is not null',
  )
  const held = await query<{ order: string }>(
    `select order_id as "order" from allocation where status = 'held'`,
  )
  const ledger = await query<{ order: string; kind: string }>(
    `select order_id as "order", kind from ledger where kind = 'payment'
       and not exists (select from ledger back where back.order_id = ledger.order_id and back.kind = 'refund')`,
  )
  const twice = await query<{ order: string; kind: string }>(
    'select order_id as "order", kind from ledger group by 1, 2 having count(*) > 1',
  )
  const active = orders.filter(({ status }) => status === 'ACTIVE').map(({ id }) => id)
  const open = orders.filter(({ status }) => status === 'PENDING' || status === 'PAID')
  return [
    ...compare(good, active, 'an active order'),
    ...compare(
      good,
      devices.map(({ order }) => order),
      'a device of the pool',
    ),
    ...compare(
      good,
      held.map(({ order }) => order),
      'an allocation',
    ),
    ...compare(
      good,
      ledger.map(({ order }) => order),
      'a payment in the ledger',
    ),
    ...twice.map(({ order, kind }): Complaint => ({ kind: 'doubled', text: `${order} has two ${kind}s` })),
    ...open.map(
      ({ id, status }): Complaint => ({ kind: 'leaked', text: `order ${id} is ${status} for ever` }),
    ),
  ]
}

/** I2, I7: what a creation leaves: its row, its port, its registration, its portion of quota. */
async function judgeCreations({ query }: Evidence, sagas: readonly SagaFound[]): Promise<Complaint[]> {
  const good = sagas
    .filter(({ id, status }) => id.startsWith('thing_creation') && status === 'COMPLETED')
    .map(({ key }) => key)
  const idsOf = async (text: string): Promise<string[]> =>
    (await query<{ id: string }>(text)).map(({ id }) => id)
  const [quota] = await query<{ used: number }>('select sum(used)::integer as used from quota')
  return [
    ...compare(good, await idsOf(`select id from thing where status = 'BOUND'`), 'a bound row'),
    ...compare(good, await idsOf('select id from thing'), 'a row'),
    ...compare(good, await idsOf('select thing_id as id from thing_port'), 'a row of its port'),
    ...compare(
      good,
      await idsOf(`select thing_id as id from registration where status = 'registered'`),
      'a registration',
    ),
    ...(quota?.used === good.length
      ? []
      : [
          {
            kind: (quota?.used ?? 0) > good.length ? ('leaked' as const) : ('lost' as const),
            text: `quota of ${quota?.used} is used by ${good.length} things`,
          },
        ]),
  ]
}

/** I4, I5, I10: every event leaves the outbox and is applied once in every queue that hears it, in the order of writing. */
async function judgeEvents({ query, bus, mayOvertake = false }: Evidence): Promise<Complaint[]> {
  const events = await query<{
    id: string
    type: string
    status: string
    aggregate: string
    version: number
  }>(`
    select id, event_type as type, status, aggregate_type || ':' || aggregate_id as aggregate,
      aggregate_version as version from event_outbox`)
  const effects = await query<{ queue: string; event: string; aggregate: string; version: number }>(
    'select queue, event_id as event, aggregate, version from effect order by position',
  )
  const wanted = events.flatMap(({ id, type }) => queuesOf(type).map((queue) => `${type} ${id} in ${queue}`))
  const types = new Map(events.map(({ id, type }) => [id, type]))
  const applied = effects.map(({ queue, event }) => `${types.get(event)} ${event} in ${queue}`)
  const left = await bus.statistics()
  const complaints = compare(wanted, applied, 'an effect')
  for (const { id, type, status } of events)
    if (status !== 'published') complaints.push({ kind: 'lost', text: `${type} ${id} is ${status}` })
  for (const { queue, ready, delayed, inFlight, dead } of left) {
    if (dead > 0) complaints.push({ kind: 'lost', text: `${dead} dead letters of ${queue}` })
    if (ready + delayed + inFlight > 0)
      complaints.push({ kind: 'leaked', text: `${ready + delayed + inFlight} deliveries left in ${queue}` })
  }
  const last = new Map<string, number>()
  for (const { queue, aggregate, version } of effects) {
    const line = `${aggregate} in ${queue}`
    const before = last.get(line) ?? 0
    if (version < before && !mayOvertake)
      complaints.push({ kind: 'disordered', text: `${line}: version ${version} after ${before}` })
    last.set(line, version)
  }
  return complaints
}

/** The queues that hear an event. */
export function queuesOf(type: string): string[] {
  return kernelTopology
    .filter(({ events }) => events.some(({ name }) => name === type))
    .map(({ queue }) => queue)
}

/** What should be there once, against what is there. */
function compare(wanted: readonly string[], found: readonly string[], what: string): Complaint[] {
  const counts = new Map<string, number>()
  for (const one of found) counts.set(one, (counts.get(one) ?? 0) + 1)
  const owed = new Set(wanted)
  return [
    ...wanted
      .filter((one) => !counts.has(one))
      .map((one): Complaint => ({ kind: 'lost', text: `${one} lacks ${what}` })),
    ...[...counts].flatMap(([one, times]): Complaint[] => {
      if (!owed.has(one)) return [{ kind: 'leaked', text: `${one} has ${what} and should not` }]
      return times > 1 ? [{ kind: 'doubled', text: `${one} has ${what} ${times} times` }] : []
    }),
  ]
}
