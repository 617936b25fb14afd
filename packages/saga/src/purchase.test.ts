import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openPurchaseTown, type PurchaseTown } from './testing/purchase-town.ts'

/* S15's shape on a real outbox and a real bus: order, device, payment, activation, and every way in which it ends. */

let town: PurchaseTown
beforeEach(async () => {
  town = await openPurchaseTown({ devices: 2 })
})
afterEach(() => town[Symbol.asyncDispose]())

async function bought(planId?: string): Promise<{ orderId: string; sagaId: string }> {
  const orderId = randomUUID()
  const sagaId = await town.buy(orderId, planId)
  await town.settled()
  return { orderId, sagaId }
}

async function standOf(orderId: string) {
  const [order] = await town.rows('select status from purchase_order where id = $1', [orderId])
  const devices = await town.rows('select id from pool_device where order_id = $1', [orderId])
  const ledger = await town.rows(
    'select kind, amount_micros::integer as micros from ledger where order_id = $1',
    [orderId],
  )
  const windows = await town.rows(`select status from payment_window`)
  const told = await town.rows(
    `select event_type from event_outbox where aggregate_type = 'order' and aggregate_id = $1 order by aggregate_version`,
    [orderId],
  )
  return {
    order: order?.status,
    devices: devices.length,
    ledger: ledger.map(({ kind, micros }) => `${String(kind)} ${String(micros)}`),
    windows: windows.map(({ status }) => status),
    told: told.map(({ event_type: type }) => type),
  }
}

test('a paid order is active and has its device', async () => {
  const { orderId, sagaId } = await bought()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'RUNNING', currentStep: 'PROCESS_PAYMENT' })
  expect(await town.rows('select payment_id from payment_page')).toEqual([
    { payment_id: `${sagaId}:OPEN_PAYMENT` },
  ])
  await town.pay({ id: 'pay-1', orderId, sagaId, paid: true })
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPLETED', currentStep: 'ACTIVATE_ORDER' })
  expect(await standOf(orderId)).toEqual({
    order: 'ACTIVE',
    devices: 1,
    ledger: ['payment 9900000'],
    windows: ['open'],
    told: ['device.allocate.requested', 'payment.requested', 'order.paid'],
  })
})

test('the same order bought twice is one purchase', async () => {
  const { orderId, sagaId } = await bought()
  expect(await town.buy(orderId)).toBe(sagaId)
})

const cancelled = {
  order: 'CANCELLED',
  devices: 0,
  ledger: [],
  windows: ['closed'],
  told: ['device.allocate.requested', 'payment.requested', 'device.release.requested', 'order.cancelled'],
}

test('a payment that never comes turns the order back after five minutes', async () => {
  const { orderId, sagaId } = await bought()
  await town.clock.advance(240_000)
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'RUNNING' })
  await town.clock.advance(60_000)
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'saga_timeout' })
  expect(await standOf(orderId)).toEqual(cancelled)
})

test('a declined payment turns the order back at once', async () => {
  const { orderId, sagaId } = await bought()
  await town.pay({ id: 'pay-1', orderId, sagaId, paid: false })
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'declined' })
  expect(await standOf(orderId)).toEqual(cancelled)
})

test('a payment that comes after the compensation is booked and refunded once', async () => {
  const { orderId, sagaId } = await bought()
  await town.clock.advance(300_000)
  await town.settled()
  const late = { id: 'pay-1', orderId, sagaId, paid: true }
  expect(await town.pay(late)).toBe('first')
  expect(await town.pay(late)).toBe('repeated')
  await town.settled()
  expect(await standOf(orderId)).toEqual({
    ...cancelled,
    order: 'REFUNDED',
    ledger: ['payment 9900000', 'refund -9900000'],
    told: [...cancelled.told, 'order.refunded'],
  })
  expect(await town.rows('select fate from payment_callback')).toEqual([{ fate: 'late' }])
})

test('a callback that is repeated books once, also when both come at once', async () => {
  const { orderId, sagaId } = await bought()
  const callback = { id: 'pay-1', orderId, sagaId, paid: true }
  const fates = await Promise.all([town.pay(callback), town.pay(callback), town.pay(callback)])
  expect(fates.toSorted()).toEqual(['first', 'repeated', 'repeated'])
  await town.settled()
  expect(await standOf(orderId)).toMatchObject({ order: 'ACTIVE', ledger: ['payment 9900000'] })
})

test('who pays twice has the second payment back, and the order stays', async () => {
  const { orderId, sagaId } = await bought()
  await town.pay({ id: 'pay-1', orderId, sagaId, paid: true })
  await town.settled()
  await town.pay({ id: 'pay-2', orderId, sagaId, paid: true })
  await town.settled()
  expect(await standOf(orderId)).toMatchObject({
    order: 'ACTIVE',
    devices: 1,
    ledger: ['payment 9900000', 'payment 9900000', 'refund -9900000'],
  })
})

test('an order turned back after its payment came is refunded', async () => {
  const { orderId, sagaId } = await bought()
  await town.pay({ id: 'pay-1', orderId, sagaId, paid: true })
  await town.sagas.turnBack({
    sagaId,
    reason: 'The user changed their mind',
    code: 'cancelled',
    actor: 'user-1',
  })
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'cancelled' })
  expect(await standOf(orderId)).toMatchObject({
    order: 'REFUNDED',
    devices: 0,
    ledger: ['payment 9900000', 'refund -9900000'],
  })
})

test('a command that comes after its release finds a tombstone, and its late answer is refused', async () => {
  await town.closeScheduler()
  const { orderId, sagaId } = await bought()
  await town.clock.advance(60_000)
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'timeout' })
  // The command is lost on the way and comes again behind its release: what a retry over a broker may do.
  await town.rows(
    `update bus.bus_delivery set position = default where event_type = 'device.allocate.requested'`,
  )
  await town.openScheduler()
  await town.settled()
  expect(await standOf(orderId)).toMatchObject({ order: 'CANCELLED', devices: 0, ledger: [] })
  expect(await town.rows('select device_id, status from allocation')).toEqual([
    { device_id: null, status: 'released' },
  ])
  const timeline = await town.rows(`select status, error from saga_step_log where status = 'refused'`)
  expect(timeline).toEqual([{ status: 'refused', error: 'late reply: device.allocate.failed: released' }])
})

test('an answer that comes after its time frees the device that it speaks of', async () => {
  await town.closeScheduler()
  const { orderId, sagaId } = await bought()
  await town.clock.advance(60_000)
  await town.settled()
  await town.openScheduler()
  await town.settled()
  expect(await town.sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED' })
  expect(await standOf(orderId)).toMatchObject({ order: 'CANCELLED', devices: 0 })
  expect(await town.rows(`select error from saga_step_log where status = 'refused'`)).toEqual([
    { error: 'late reply: done' },
  ])
})

test('without a free device, or a plan, an order comes to nothing', async () => {
  await bought()
  await bought()
  const third = await bought()
  expect(await town.sagas.get(third.sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'refused' })
  const strange = await bought('no-such-plan')
  expect(await town.sagas.get(strange.sagaId)).toMatchObject({
    status: 'COMPENSATED',
    errorCode: 'unknown_plan',
  })
  expect((await standOf(strange.orderId)).told).toEqual([])
})
