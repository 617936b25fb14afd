import { randomUUID } from 'node:crypto'
import { systemClock } from '@cloudphone/observe/clock'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { saga } from './builder.ts'
import { OperationInProgress, SagaKeyReused } from './errors.ts'
import { begin, openWorkshop, rowOf, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
})
afterAll(() => workshop[Symbol.asyncDispose]())

interface Input {
  readonly name: string
  readonly cores?: number
}

const definition = saga('starting', 1, { timeoutMs: 600_000 })
  .input<Input, WorldTx>()
  .local('ONLY', async () => undefined)
  .end()

const other = saga('other_kind', 1, { timeoutMs: 600_000 })
  .input<Input, WorldTx>()
  .local('ONLY', async () => undefined)
  .end()

test('trap 10: the same request starts one saga, also when it comes ten times at once', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const businessKey = randomUUID()
  const started = await Promise.all(
    Array.from({ length: 10 }, () =>
      workshop.database.transaction((tx) =>
        sagas.start(tx, { definition, businessKey, input: { cores: 2, name: 'a' } }),
      ),
    ),
  )
  expect(new Set(started.map(({ sagaId }) => sagaId)).size).toBe(1)
  expect(started.filter(({ created }) => created)).toHaveLength(1)
  expect(started[0]?.sagaId).toMatch(/^starting-[0-9a-f-]{36}$/)
  await sagas.drain()
  // Spelt in another order it is the same request, also after its saga has ended.
  const again = await workshop.database.transaction((tx) =>
    sagas.start(tx, { definition, businessKey, input: { name: 'a', cores: 2 } }),
  )
  expect(again).toEqual({ sagaId: started[0]?.sagaId, created: false })
})

test('the same key for something else is refused', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const businessKey = randomUUID()
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'a' }, businessKey })
  const reused = begin(workshop, sagas, definition, { input: { name: 'b' }, businessKey })
  await expect(reused).rejects.toThrow(SagaKeyReused)
  await expect(reused).rejects.toMatchObject({ code: 'saga_key_reused', sagaId, status: 422 })
})

test('one live saga per subject, of whatever type; the next may come when it has ended', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition, other] })
  const subject = randomUUID()
  const start = (which: typeof definition) =>
    begin(workshop, sagas, which, { input: { name: 'a' }, businessKey: randomUUID(), subject })
  const sagaId = await start(definition)
  const second = start(other)
  await expect(second).rejects.toThrow(OperationInProgress)
  await expect(second).rejects.toMatchObject({ code: 'operation_in_progress', sagaId, status: 409 })
  await sagas.drain()
  expect(await start(other)).toMatch(/^other_kind-/)
})

test('a saga whose transaction rolls back never was', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  let sagaId = ''
  const failed = workshop.database.transaction(async (tx) => {
    ;({ sagaId } = await sagas.start(tx, { definition, businessKey: randomUUID(), input: { name: 'r' } }))
    throw new Error('after all')
  })
  await expect(failed).rejects.toThrow('after all')
  await sagas.drain()
  expect(await sagas.get(sagaId)).toBeUndefined()
})

test('empty keys and subjects are refused', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const input = { name: 'a' }
  await expect(begin(workshop, sagas, definition, { input, businessKey: '' })).rejects.toThrow(
    'businessKey is empty',
  )
  await expect(begin(workshop, sagas, definition, { input, subject: '' })).rejects.toThrow('subject is empty')
})

test('lists go newest first, page by page, by status, type and user', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const mine: string[] = []
  for (let index = 0; index < 5; index += 1) {
    const { sagaId } = await workshop.database.transaction((tx) =>
      sagas.start(tx, { definition, businessKey: randomUUID(), userId: 'lister', input: { name: 'l' } }),
    )
    mine.push(sagaId)
  }
  await sagas.drain()
  const seen: string[] = []
  for (let after: { createdAt: string; sagaId: string } | undefined; ; ) {
    const page = await sagas.list({
      userId: 'lister',
      status: 'COMPLETED',
      type: 'starting',
      limit: 2,
      after,
    })
    seen.push(...page.map(({ sagaId }) => sagaId))
    after = page.at(-1)
    if (page.length < 2) break
  }
  expect(seen).toEqual(mine.toReversed())
  expect(await sagas.list({ userId: 'lister', status: 'RUNNING', limit: 2 })).toEqual([])
})

test('sagas are kept 30 days after their end, what happened in them 90', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: { name: 'p' }, businessKey: randomUUID() })
  await sagas.drain()
  const day = 86_400_000
  await workshop.clock.advance(29 * day)
  expect(await sagas.purge()).toEqual({ sagas: 0, logEntries: 0 })
  const live = await begin(workshop, sagas, definition, { input: { name: 'q' }, businessKey: randomUUID() })
  await workshop.clock.advance(2 * day)
  expect((await sagas.purge()).sagas).toBeGreaterThan(0)
  expect(await sagas.get(sagaId)).toBeUndefined()
  expect(await sagas.get(live)).toMatchObject({ status: 'RUNNING' })
  await workshop.clock.advance(60 * day)
  expect((await sagas.purge()).logEntries).toBeGreaterThan(0)
})

test('whoever starts a saga holds it from its insert on, and says what became of it without a look', async () => {
  const { sagas, executor } = await workshop.engine({ definitions: [definition, other], clock: systemClock })
  await sagas.run()
  let held: unknown
  const { sagaId } = await workshop.database.transaction(async (tx) => {
    const started = await sagas.start(tx, { definition, businessKey: randomUUID(), input: { name: 'a' } })
    const { rows } = await sql<{ lease_owner: string; fence: number }>`
      select lease_owner, fence from saga_state where saga_id = ${started.sagaId}`.execute(tx)
    held = rows[0]
    return started
  })
  expect(held).toEqual({ lease_owner: executor.current?.id, fence: 1 })
  expect(await sagas.waitForOutcome(sagaId, { timeoutMs: 20_000 })).toEqual({
    sagaId,
    status: 'COMPLETED',
    state: { name: 'a' },
    errorMessage: null,
    errorCode: null,
  })
  // The same, read by one who was not there.
  const late = await workshop.engine({ definitions: [definition, other] })
  expect(await late.sagas.waitForOutcome(sagaId, { timeoutMs: 0 })).toMatchObject({ status: 'COMPLETED' })
})

test('a saga that is committed after its starter has stopped is given back, and run by another', async () => {
  const one = await workshop.engine({ definitions: [definition, other], clock: systemClock })
  const second = await workshop.engine({ definitions: [definition, other], clock: systemClock, sweepMs: 100 })
  await one.sagas.run()
  const { sagaId } = await workshop.database.transaction(async (tx) => {
    const started = await one.sagas.start(tx, {
      definition,
      businessKey: randomUUID(),
      input: { name: 'a' },
    })
    await one.sagas.stop()
    return started
  })
  await second.sagas.run()
  const view = await second.sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })
  expect(view?.status).toBe('COMPLETED')
  expect(view?.timeline.map(({ status }) => status)).toEqual(['done'])
  expect(Number((await rowOf(workshop, sagaId)).fence)).toBe(2)
})

test('sagas that are started alone share a commit, and each request is one saga all the same', async () => {
  const { sagas } = await workshop.engine({ definitions: [definition, other] })
  const keys = Array.from({ length: 20 }, () => randomUUID())
  const started = await Promise.all(
    [...keys, ...keys].map((businessKey) =>
      sagas.startAlone({ definition, businessKey, input: { name: 'a' } }),
    ),
  )
  expect(started.filter(({ created }) => created)).toHaveLength(20)
  expect(new Set(started.map(({ sagaId }) => sagaId)).size).toBe(20)
  await expect(
    sagas.startAlone({ definition, businessKey: keys[0] ?? '', input: { name: 'b' } }),
  ).rejects.toBeInstanceOf(SagaKeyReused)
  const subject = randomUUID()
  await sagas.startAlone({ definition, businessKey: randomUUID(), subject, input: { name: 'a' } })
  await expect(
    sagas.startAlone({ definition, businessKey: randomUUID(), subject, input: { name: 'a' } }),
  ).rejects.toBeInstanceOf(OperationInProgress)
  await sagas.drain()
})
