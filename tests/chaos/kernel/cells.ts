/* Terminology:
 * - point: a named place in the kernel's code at which a process can be caught
 * - fault: what happens there
 * - cell: one run of eight sagas in which one fault happens at one point
 */
import { systemIds } from '@cloudphone/contracts/id'
import { openOutbox } from '@cloudphone/outbox/open-outbox'
import type { SagaDefinition } from '@cloudphone/saga/definition'
import { definitionsOf, type Timing } from './world.ts'

/** Short enough that a cell is over in seconds, long enough that nothing runs out by itself. */
export const timing: Timing = { leaseMs: 1_000, stepMs: 1_000, retryMs: [50, 100, 200], replyMs: 20_000 }
/** A hang outlives both the step's deadline and the lease. */
export const HANG_MS = 2_000
/** A frozen process is woken when its leases have long been somebody else's. */
export const FROZEN_MS = 2 * timing.leaseMs

export const faults = {
  kill: 'SIGKILL',
  stop: 'SIGSTOP past the lease, then SIGCONT',
  throw: 'thrown error',
  hang: 'hang',
  terminate: 'backends terminated',
  postgres: 'PostgreSQL stopped at once and started',
  rabbitmq: 'RabbitMQ killed and started',
} as const

export type Fault = keyof typeof faults

export interface Cell {
  readonly point: string
  readonly fault: Fault
  readonly instances: 1 | 2
  readonly bus: 'embedded' | 'rabbitmq'
  /** How often the fault happens: the second time, to whoever recovers. */
  readonly times: 1 | 2
}

export interface Exclusion {
  readonly cells: number
  readonly what: string
  readonly reason: string
}

/** What every process of the kernel passes by, whatever its sagas are about. */
const HALLS = [
  'saga.after_claim',
  'outbox.after_claim',
  'outbox.after_publish',
  'outbox.after_mark',
  'bus.after_insert',
  'consumer.before_tx',
  'consumer.in_tx',
  'consumer.after_commit',
] as const

const PLACES = ['before_effect', 'after_effect', 'after_checkpoint'] as const

/** Between a step's effect and its record, in the way back, and between a broker's word and ours. */
const WORST = [
  'saga.thing_creation.CREATE_RESOURCE.after_effect',
  'saga.payment_purchase.OPEN_PAYMENT.undo.after_effect',
  'outbox.after_publish',
] as const

export function nameOf({ point, fault, instances, bus, times }: Cell): string {
  return `${point} ${fault}${times === 2 ? ' twice' : ''} x${instances}${bus === 'embedded' ? '' : ` ${bus}`}`
}

/** Every point of the world's definitions, and of what they run on. */
export function pointsOf(): string[] {
  const outbox = openOutbox({ source: 'cells', ids: systemIds, wake: () => undefined })
  const definitions: readonly SagaDefinition<never, never>[] = Object.values(
    definitionsOf({ outbox, timing, providerUrl: '' }),
  )
  const steps = definitions.flatMap(({ type, steps }) =>
    steps.flatMap(({ name, undo }) => [
      ...PLACES.map((place) => `saga.${type}.${name}.${place}`),
      ...(undo === undefined ? [] : PLACES.map((place) => `saga.${type}.${name}.undo.${place}`)),
    ]),
  )
  return [...HALLS, ...steps]
}

/** Whether a point lies on the way of an event, where the bus makes a difference. */
function isOfEvents(point: string): boolean {
  return /^(outbox|bus|consumer)\./.test(point)
}

/** The whole matrix, and what is not in it. */
export function matrix(): { cells: Cell[]; excluded: Exclusion[] } {
  const points = pointsOf()
  const all = points.flatMap((point) =>
    (Object.keys(faults) as Fault[]).flatMap((fault) =>
      ([1, 2] as const).flatMap((instances) =>
        (['embedded', 'rabbitmq'] as const).map((bus): Cell => ({ point, fault, instances, bus, times: 1 })),
      ),
    ),
  )
  const reasons = all.map(reasonAgainst)
  const excluded = [...new Set(reasons)]
    .filter((one) => one !== undefined)
    .map(({ what, reason }) => ({ what, reason, cells: reasons.filter((one) => one?.what === what).length }))
  const twice = WORST.flatMap((point) =>
    ([1, 2] as const).map(
      (instances): Cell => ({ point, fault: 'kill', instances, bus: 'embedded', times: 2 }),
    ),
  )
  return { cells: [...all.filter((_, at) => reasons[at] === undefined), ...twice], excluded }
}

type Reason = Omit<Exclusion, 'cells'>

const NO_BROKER: Reason = {
  what: 'RabbitMQ killed, events on the embedded bus',
  reason: 'there is no broker to kill',
}
const NO_EVENT: Reason = {
  what: 'saga points with events on RabbitMQ, faults of processes and of PostgreSQL',
  reason:
    'no step speaks to the bus: its command is a row of the outbox; the same point is run on the embedded bus',
}
const NOT_THERE: Reason = {
  what: 'RabbitMQ killed at a saga point',
  reason:
    'no step waits for the broker: what the kill does to the event is done at the points of outbox, bus and consumer',
}

const NO_DEADLINE: Reason = {
  what: 'a hang after a checkpoint',
  reason: 'nothing is held there but the lease, which the heartbeat renews: a pause, and no fault',
}

function reasonAgainst({ point, fault, bus }: Cell): Reason | undefined {
  if (fault === 'hang' && point.endsWith('.after_checkpoint')) return NO_DEADLINE
  if (bus === 'embedded') return fault === 'rabbitmq' ? NO_BROKER : undefined
  if (isOfEvents(point)) return undefined
  return fault === 'rabbitmq' ? NOT_THERE : NO_EVENT
}

/**
 * How often a cell passes its point at least, whichever way it goes: the seed strikes at one of these visits. Two of the
 * sagas of each kind turn back; events leave and come in batches, of which there are few.
 */
export function visitsOf({ point }: Cell): number {
  return point === 'saga.after_claim' || point.startsWith('consumer.') ? 4 : 2
}

/** A part of the matrix: each point of the halls, each place of each kind of step, each fault, one instance and two. */
const SMOKE: readonly string[] = [
  'saga.after_claim stop x2',
  'saga.after_claim kill x1',
  'outbox.after_claim terminate x2',
  'outbox.after_publish kill x2',
  'outbox.after_publish stop x2',
  'outbox.after_mark kill x1',
  'bus.after_insert kill x2',
  'bus.after_insert postgres x1',
  'consumer.before_tx throw x2',
  'consumer.in_tx kill x2',
  'consumer.in_tx terminate x1',
  'consumer.after_commit kill x1',
  'consumer.after_commit stop x2',
  'saga.thing_creation.RESERVE.after_effect kill x2',
  'saga.thing_creation.CREATE_RESOURCE.before_effect stop x2',
  'saga.thing_creation.CREATE_RESOURCE.after_effect kill x1',
  'saga.thing_creation.CREATE_RESOURCE.after_effect hang x1',
  'saga.thing_creation.ALLOCATE_PORTS.after_effect postgres x2',
  'saga.thing_creation.ALLOCATE_PORTS.undo.after_effect kill x2',
  'saga.thing_creation.WRITE_ROWS.after_checkpoint throw x1',
  'saga.thing_creation.ANNOUNCE.undo.before_effect terminate x2',
  'saga.payment_purchase.ALLOCATE_DEVICE.after_effect kill x1',
  'saga.payment_purchase.OPEN_PAYMENT.before_effect throw x2',
  'saga.payment_purchase.OPEN_PAYMENT.undo.after_effect stop x2',
  'saga.payment_purchase.PROCESS_PAYMENT.after_checkpoint kill x2',
  'saga.payment_purchase.ACTIVATE_ORDER.after_effect kill x1',
  'saga.payment_purchase.CREATE_ORDER.undo.before_effect hang x2',
  'saga.thing_creation.CREATE_RESOURCE.after_effect kill twice x2',
  'bus.after_insert kill x1 rabbitmq',
  'consumer.after_commit kill x2 rabbitmq',
  'outbox.after_publish rabbitmq x2 rabbitmq',
]

/** @throws Error when the matrix has no such cell any more. */
export function smoke(cells: readonly Cell[]): Cell[] {
  const found = cells.filter((cell) => SMOKE.includes(nameOf(cell)))
  if (found.length === SMOKE.length) return found
  const names = found.map(nameOf)
  throw new Error(`no such cells: ${SMOKE.filter((name) => !names.includes(name)).join(', ')}`)
}
