/* The shape of a plan purchase (S15), as a fixture without any route: every kind of step, a command to another room and
 * its reply, a wait for somebody outside, a point of no return. Billing owns the orders and the ledger, the scheduler the
 * allocations; they meet by events only, though the fixture keeps all of it in one schema. */
import type { PayloadOf, ReceivedEvent } from '@cloudphone/contracts/event'
import type { AnyTx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { sql } from 'kysely'
import { saga } from '../builder.ts'
import type { RetryPolicy } from '../definition.ts'
import type { Sagas } from '../engine.ts'
import { PermanentError } from '../errors.ts'
import {
  AllocateCompleted,
  AllocateFailed,
  AllocateRequested,
  OrderCancelled,
  OrderPaid,
  OrderRefunded,
  PaymentRequested,
  ReleaseRequested,
} from './purchase-events.ts'

/** Without unique keys where a doubled effect shall show: in `ledger`. */
export const PURCHASE_TABLES = `
  create table plan (id text primary key, price_micros bigint not null);
  create table purchase_order (
    id text primary key, saga_id text not null, status text not null, amount_micros bigint not null,
    expires_at timestamptz not null, version integer not null,
    check (status in ('PENDING', 'PAID', 'ACTIVE', 'CANCELLED', 'REFUNDED')));
  create table pool_device (id text primary key, order_id text unique);
  -- A released one is the tombstone that refuses a late command.
  create table allocation (
    order_id text primary key, device_id text, answers integer not null default 0,
    status text not null check (status in ('held', 'refused', 'released')));
  create table payment_page (order_id text primary key, payment_id text not null, saga_id text not null);
  create table payment_callback (id text primary key, order_id text not null, fate text);
  create table ledger (order_id text not null, kind text not null, amount_micros bigint not null);`

export interface PurchaseInput {
  readonly orderId: string
  readonly planId: string
}

/** What a payment provider offers. Both are safe to repeat under their key, and refuse a fence older than the last. */
export interface Payments {
  open(payment: { key: string; fence: number; orderId: string; signal: AbortSignal }): Promise<void>
  /** Ensures that nobody can pay any more, also when it was never opened. */
  close(payment: { key: string; fence: number; signal: AbortSignal }): Promise<void>
}

export interface PurchaseOptions {
  readonly outbox: Outbox
  readonly payments: Payments
  /** Of every step. Default: the engine's. */
  readonly retry?: RetryPolicy
  /** Default 60 s. */
  readonly allocateWithinMs?: number
}

const SAGA_TIMEOUT_MS = 300_000

/** The definition. The payment's wait is bounded by the saga's own five minutes. */
export function purchaseSaga({ outbox, payments, retry = {}, allocateWithinMs = 60_000 }: PurchaseOptions) {
  return saga('payment_purchase', 1, { timeoutMs: SAGA_TIMEOUT_MS })
    .input<PurchaseInput>()
    .local('VALIDATE_PLAN', validatePlan, retry)
    .local('CREATE_ORDER', createOrder, retry)
    .undo(async (tx, s) => {
      await sql`update purchase_order set status = 'CANCELLED' where id = ${s.orderId} and status = 'PENDING'`.execute(
        tx,
      )
    })
    .ask<{ deviceId: string }, typeof AllocateRequested>(
      'ALLOCATE_DEVICE',
      AllocateRequested,
      (tx, { orderId }, { sagaId }) => orderFact(tx, orderId, { sagaId, orderId }),
      { withinMs: allocateWithinMs, ...retry },
    )
    .undo(async (tx, { orderId }, { sagaId }) => {
      await outbox.add(tx, ReleaseRequested, await orderFact(tx, orderId, { sagaId, orderId }))
    })
    .call(
      'OPEN_PAYMENT',
      async ({ orderId }, { key, fence, signal }) => {
        await payments.open({ key, fence, orderId, signal })
        return { paymentId: key }
      },
      retry,
    )
    .undo((_s, { key, fence, signal }) => payments.close({ key: key.replace(/:undo$/, ''), fence, signal }))
    .ask<{ paidAt: string }, typeof PaymentRequested>(
      'PROCESS_PAYMENT',
      PaymentRequested,
      (tx, { orderId, paymentId, amountMicros }, { sagaId }) =>
        orderFact(tx, orderId, { sagaId, orderId, paymentId, amountMicros }),
      { withinMs: SAGA_TIMEOUT_MS, ...retry },
    )
    .undo((tx, { orderId }, { sagaId }) => undoPayment(tx, { outbox, orderId, sagaId }))
    .pointOfNoReturn()
    .local(
      'ACTIVATE_ORDER',
      async (tx, { orderId }) => {
        await sql`update purchase_order set status = 'ACTIVE' where id = ${orderId} and status = 'PAID'`.execute(
          tx,
        )
      },
      retry,
    )
    .onCompleted(async (tx, { orderId }, { sagaId }) => {
      await outbox.add(tx, OrderPaid, await orderFact(tx, orderId, { sagaId, orderId }))
    })
    .onCompensated(async (tx, { orderId }, { sagaId, error }) => {
      // A purchase of an unknown plan never had an order to tell of.
      if (!(await hasOrder(tx, orderId))) return
      await outbox.add(tx, OrderCancelled, await orderFact(tx, orderId, { sagaId, orderId, reason: error }))
    })
    .end()
}

async function validatePlan(tx: AnyTx, { planId }: PurchaseInput): Promise<{ amountMicros: number }> {
  const { rows } = await sql<{ amount: number }>`
    select price_micros as amount from plan where id = ${planId}`.execute(tx)
  if (rows[0] === undefined) throw new PermanentError('unknown_plan', `There is no plan ${planId}`)
  return { amountMicros: Number(rows[0].amount) }
}

async function createOrder(
  tx: AnyTx,
  { orderId, amountMicros }: PurchaseInput & { amountMicros: number },
  { sagaId }: { sagaId: string },
): Promise<void> {
  await sql`
    insert into purchase_order (id, saga_id, status, amount_micros, expires_at, version)
    values (${orderId}, ${sagaId}, 'PENDING', ${amountMicros},
      app_now() + ${SAGA_TIMEOUT_MS} * interval '1 millisecond', 0)`.execute(tx)
}

/** An event of an order under its next version, which the row's lock makes gapless. */
async function orderFact<Payload>(tx: AnyTx, orderId: string, payload: Payload) {
  const { rows } = await sql<{ version: number }>`
    update purchase_order set version = version + 1 where id = ${orderId} returning version`.execute(tx)
  if (rows[0] === undefined) throw new Error(`There is no order ${orderId}`)
  return { aggregateId: orderId, aggregateVersion: rows[0].version, payload }
}

async function hasOrder(tx: AnyTx, orderId: string): Promise<boolean> {
  const { rows } = await sql`select from purchase_order where id = ${orderId}`.execute(tx)
  return rows.length > 0
}

/** Gives a payment back: one that came too late, or the one of an order whose saga has turned back after it. */
async function refund(
  tx: AnyTx,
  {
    outbox,
    orderId,
    sagaId,
    from,
  }: { outbox: Outbox; orderId: string; sagaId: string; from: readonly string[] },
): Promise<void> {
  await sql`
    update purchase_order set status = 'REFUNDED'
    where id = ${orderId} and status = any(${from}::text[])`.execute(tx)
  await post(tx, orderId, 'refund')
  await outbox.add(tx, OrderRefunded, await orderFact(tx, orderId, { sagaId, orderId }))
}

async function undoPayment(
  tx: AnyTx,
  { outbox, orderId, sagaId }: { outbox: Outbox; orderId: string; sagaId: string },
): Promise<void> {
  const { rows } = await sql`select from purchase_order where id = ${orderId} and status = 'PAID'`.execute(tx)
  if (rows.length > 0) await refund(tx, { outbox, orderId, sagaId, from: ['PAID'] })
}

async function post(tx: AnyTx, orderId: string, kind: 'payment' | 'refund'): Promise<void> {
  await sql`
    insert into ledger
    select id, ${kind}, case when ${kind} = 'refund' then -amount_micros else amount_micros end
    from purchase_order where id = ${orderId}`.execute(tx)
}

/** The scheduler's side: answers commands. An order that was released gets nothing, however late it asks. */
export async function answerScheduler(
  tx: AnyTx,
  outbox: Outbox,
  event: ReceivedEvent<PayloadOf<typeof AllocateRequested>>,
): Promise<void> {
  if (event.type === ReleaseRequested.name) await releaseDevice(tx, event.data.orderId)
  else await allocateDevice(tx, outbox, event.data)
}

async function releaseDevice(tx: AnyTx, orderId: string): Promise<void> {
  await sql`
    insert into allocation (order_id, status) values (${orderId}, 'released')
    on conflict (order_id) do update set status = 'released'`.execute(tx)
  await sql`update pool_device set order_id = null where order_id = ${orderId}`.execute(tx)
}

async function allocateDevice(
  tx: AnyTx,
  outbox: Outbox,
  { sagaId, orderId }: PayloadOf<typeof AllocateRequested>,
): Promise<void> {
  if (!(await isKnown(tx, orderId))) await claimDevice(tx, orderId)
  // A command that is heard twice is answered twice, alike.
  const { rows } = await sql<{ device_id: string | null; status: string; answers: number }>`
    update allocation set answers = answers + 1 where order_id = ${orderId}
    returning device_id, status, answers`.execute(tx)
  const { device_id: deviceId, status, answers } = rows[0] ?? { device_id: null, status: '', answers: 0 }
  const facts = { aggregateId: orderId, aggregateVersion: answers }
  if (status === 'held' && deviceId !== null) {
    await outbox.add(tx, AllocateCompleted, { ...facts, payload: { sagaId, orderId, deviceId } })
  } else {
    await outbox.add(tx, AllocateFailed, { ...facts, payload: { sagaId, orderId, reason: status } })
  }
}

async function isKnown(tx: AnyTx, orderId: string): Promise<boolean> {
  const { rows } = await sql`select from allocation where order_id = ${orderId} for update`.execute(tx)
  return rows.length > 0
}

async function claimDevice(tx: AnyTx, orderId: string): Promise<void> {
  const { rows } = await sql<{ id: string }>`
    update pool_device set order_id = ${orderId}
    where id = (select id from pool_device where order_id is null order by id limit 1 for update skip locked)
    returning id`.execute(tx)
  const deviceId = rows[0]?.id ?? null
  await sql`
    insert into allocation (order_id, device_id, status)
    values (${orderId}, ${deviceId}, ${deviceId === null ? 'refused' : 'held'})`.execute(tx)
}

/** Billing's ear for the scheduler's answers. Nothing is to be done for a late one: the undo has sent its release. */
export async function hearAllocation(
  tx: AnyTx,
  sagas: Pick<Sagas, 'reply'>,
  { type, data }: ReceivedEvent<PayloadOf<typeof AllocateCompleted> | PayloadOf<typeof AllocateFailed>>,
): Promise<void> {
  const outcome =
    'deviceId' in data
      ? { ok: true as const, result: { deviceId: data.deviceId } }
      : {
          ok: false as const,
          error: { message: `${type}: ${data.reason}`, code: data.reason, retryable: false },
        }
  await sagas.reply(tx, { sagaId: data.sagaId, step: 'ALLOCATE_DEVICE', outcome })
}

/** Shows the user where to pay. */
export async function showPaymentPage(
  tx: AnyTx,
  { data }: ReceivedEvent<PayloadOf<typeof PaymentRequested>>,
): Promise<void> {
  await sql`
    insert into payment_page values (${data.orderId}, ${data.paymentId}, ${data.sagaId})
    on conflict do nothing`.execute(tx)
}

/** What the payment provider calls us with, as often as it takes until we say that we have it. */
export interface PaymentCallback {
  /** The provider's own, the same in every repetition. */
  readonly id: string
  readonly orderId: string
  readonly sagaId: string
  readonly paid: boolean
  readonly at: string
}

/**
 * Books a payment and carries its saga on, in one transaction. A repeated callback changes nothing. Money that comes too
 * late for its order is booked, because it came, and refunded at once.
 */
export async function takePayment(
  tx: AnyTx,
  { outbox, sagas }: { outbox: Outbox; sagas: Pick<Sagas, 'reply'> },
  { id, orderId, sagaId, paid, at }: PaymentCallback,
): Promise<'first' | 'repeated'> {
  const { rows } = await sql`
    insert into payment_callback (id, order_id) values (${id}, ${orderId})
    on conflict do nothing returning id`.execute(tx)
  if (rows.length === 0) return 'repeated'
  // The order's row before the saga's, as every step locks them: its work comes before its checkpoint.
  await sql`select from purchase_order where id = ${orderId} for update`.execute(tx)
  const fate = await sagas.reply(tx, {
    sagaId,
    step: 'PROCESS_PAYMENT',
    outcome: paid
      ? { ok: true, result: { paidAt: at } }
      : { ok: false, error: { message: 'The payment was declined', code: 'declined', retryable: false } },
  })
  await sql`update payment_callback set fate = ${fate} where id = ${id}`.execute(tx)
  if (!paid) return 'first'
  await post(tx, orderId, 'payment')
  await (fate === 'accepted'
    ? sql`update purchase_order set status = 'PAID' where id = ${orderId} and status = 'PENDING'`.execute(tx)
    : refund(tx, { outbox, orderId, sagaId, from: ['PENDING', 'CANCELLED'] }))
  return 'first'
}
