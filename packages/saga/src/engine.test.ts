import { afterAll, beforeAll, expect, test } from 'vitest'
import { saga } from './builder.ts'
import { begin, openWorkshop, rowOf, thingsOf, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
})
afterAll(() => workshop[Symbol.asyncDispose]())

test('a saga runs through its steps and ends COMPLETED at the last one', async () => {
  const order: string[] = []
  const creation = saga('happy', 1, { timeoutMs: 600_000 })
    .input<{ name: string }, WorldTx>()
    .local('ALLOCATE', async (tx, s, { sagaId }) => {
      await tx
        .insertInto('things')
        .values({ key: `port of ${s.name}`, saga_id: sagaId })
        .execute()
      return { port: 5555 }
    })
    .undo(async () => undefined)
    .call(
      'CREATE',
      async (s, { key, signal }) => {
        order.push(`${key} ${s.port} ${signal.aborted}`)
        return { externalId: `x-${s.name}` }
      },
      {
        record: async (tx, s, { sagaId }) => {
          await tx.insertInto('notes').values({ saga_id: sagaId, text: s.externalId }).execute()
        },
      },
    )
    .onCompleted(async (tx, s, { sagaId, userId }) => {
      await tx
        .insertInto('notes')
        .values({ saga_id: sagaId, text: `${userId} has ${s.externalId}` })
        .execute()
    })
    .end()
  const { sagas } = await workshop.engine({ definitions: [creation] })
  await sagas.run()
  const sagaId = await begin(workshop, sagas, creation, { input: { name: 'a' } })
  const view = await sagas.waitForEnd(sagaId, { timeoutMs: 10_000 })
  expect(view).toMatchObject({
    status: 'COMPLETED',
    currentStep: 'CREATE',
    stepIndex: 1,
    retryCount: 0,
    errorMessage: null,
    userId: 'user-1',
    tenantId: 'tenant-1',
    steps: [
      { name: 'ALLOCATE', kind: 'local', status: 'done' },
      { name: 'CREATE', kind: 'call', status: 'done' },
    ],
  })
  expect(view?.timeline.map(({ step, status }) => `${step} ${status}`)).toEqual([
    'ALLOCATE done',
    'CREATE done',
  ])
  expect(order).toEqual([`${sagaId}:CREATE 5555 false`])
  expect(await thingsOf(workshop)).toEqual(['port of a'])
  const notes = await workshop.database.kysely.selectFrom('notes').select('text').execute()
  expect(notes.map(({ text }) => text)).toEqual(['x-a', 'user-1 has x-a'])
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'COMPLETED', lease_owner: null, fence: 1 })
})
