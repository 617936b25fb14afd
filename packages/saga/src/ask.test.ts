import { randomUUID } from 'node:crypto'
import { defineEvent } from '@cloudphone/contracts/event'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { saga } from './builder.ts'
import type { AskOutcome } from './row.ts'
import { begin, openWorkshop, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
  await workshop.database.pool.query('create table sent (name text, aggregate_id text, payload jsonb)')
})
afterAll(() => workshop[Symbol.asyncDispose]())

const AllocateRequested = defineEvent({
  name: 'device.allocate.requested',
  version: 1,
  aggregate: 'order',
  payload: z.object({ orderId: z.string() }),
  description: 'An order wants a device.',
})

/** An outbox as far as the engine knows one: rows written in the transaction it is given. */
const outbox: Pick<Outbox, 'add'> = {
  async add(tx, definition, { aggregateId, payload }) {
    await sql`insert into sent values (${definition.name}, ${aggregateId}, ${JSON.stringify(payload)})`.execute(
      tx,
    )
  },
}

interface Input {
  readonly orderId: string
}

const purchase = saga('ask_purchase', 1, { timeoutMs: 300_000 })
  .input<Input, WorldTx>()
  .local('CREATE_ORDER', async () => ({ version: 1 }))
  .undo(async (tx, s) => {
    await tx.insertInto('notes').values({ saga_id: s.orderId, text: 'order cancelled' }).execute()
  })
  .ask<{ deviceId: string }, typeof AllocateRequested>(
    'ALLOCATE_DEVICE',
    AllocateRequested,
    async (_tx, s) => ({
      aggregateId: s.orderId,
      aggregateVersion: s.version,
      payload: { orderId: s.orderId },
    }),
    { withinMs: 60_000 },
  )
  .undo(async (tx, s) => {
    await tx.insertInto('notes').values({ saga_id: s.orderId, text: 'device released' }).execute()
  })
  .local('ACTIVATE', async (tx, s) => {
    await tx
      .insertInto('notes')
      .values({ saga_id: s.orderId, text: `has ${s.deviceId}` })
      .execute()
  })
  .end()

async function asked() {
  const engine = await workshop.engine({ definitions: [purchase], outbox })
  const orderId = randomUUID()
  const sagaId = await begin(workshop, engine.sagas, purchase, { input: { orderId }, businessKey: orderId })
  await engine.sagas.drain()
  const reply = (outcome: AskOutcome) =>
    workshop.database.transaction((tx) =>
      engine.sagas.reply(tx, { sagaId, step: 'ALLOCATE_DEVICE', outcome }),
    )
  const notes = async (): Promise<string[]> => {
    const rows = await workshop.database.kysely
      .selectFrom('notes')
      .select('text')
      .where('saga_id', '=', orderId)
      .execute()
    return rows.map(({ text }) => text)
  }
  const sent = async (): Promise<unknown[]> =>
    (await workshop.database.pool.query('select name, payload from sent where aggregate_id = $1', [orderId]))
      .rows
  return { ...engine, sagaId, orderId, reply, notes, sent }
}

test('a command leaves by the outbox, and the reply carries the saga on', async () => {
  const { sagas, sagaId, orderId, reply, notes, sent } = await asked()
  expect(await sent()).toEqual([{ name: 'device.allocate.requested', payload: { orderId } }])
  expect(await sagas.get(sagaId)).toMatchObject({ status: 'RUNNING', currentStep: 'ALLOCATE_DEVICE' })
  expect(await reply({ ok: true, result: { deviceId: 'd-1' } })).toBe('accepted')
  expect(await reply({ ok: true, result: { deviceId: 'd-2' } })).toBe('duplicate')
  await sagas.drain()
  expect(await sagas.get(sagaId)).toMatchObject({
    status: 'COMPLETED',
    currentStep: 'ACTIVATE',
    stepIndex: 2,
  })
  expect(await notes()).toEqual(['has d-1'])
  expect(await reply({ ok: true, result: { deviceId: 'd-1' } })).toBe('duplicate')
  expect(await sent()).toHaveLength(1)
})

test('a refusal turns it back', async () => {
  const { sagas, sagaId, reply, notes } = await asked()
  expect(await reply({ ok: false, error: { code: 'no_device', message: 'No device is free' } })).toBe(
    'accepted',
  )
  await sagas.drain()
  expect(await sagas.get(sagaId)).toMatchObject({
    status: 'COMPENSATED',
    errorMessage: 'No device is free',
    errorCode: 'no_device',
  })
  expect(await notes()).toEqual(['device released', 'order cancelled'])
})

test('no reply in time turns it back, and the late one is refused, on record', async () => {
  const { sagas, sagaId, reply, notes } = await asked()
  await workshop.clock.advance(60_000)
  await sagas.drain()
  expect(await sagas.get(sagaId)).toMatchObject({ status: 'COMPENSATED', errorCode: 'timeout' })
  expect(await notes()).toEqual(['device released', 'order cancelled'])
  expect(await reply({ ok: true, result: { deviceId: 'd-9' } })).toBe('late')
  const view = await sagas.get(sagaId)
  expect(view?.timeline.at(-1)).toMatchObject({ step: 'ALLOCATE_DEVICE', status: 'refused' })
  expect(view?.status).toBe('COMPENSATED')
})

test('a reply to nothing is unknown', async () => {
  const { sagas } = await asked()
  const fate = await workshop.database.transaction((tx) =>
    sagas.reply(tx, { sagaId: 'ask_purchase-nobody', step: 'ALLOCATE_DEVICE', outcome: { ok: true } }),
  )
  expect(fate).toBe('unknown')
})
