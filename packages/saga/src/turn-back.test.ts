import { expect, test } from 'vitest'
import { saga } from './builder.ts'
import { begin, openWorkshop, rowOf, type WorldTx } from './testing/workshop.ts'

test('turned back in the middle of a try, a saga is undone when the try can no longer act', async () => {
  await using workshop = await openWorkshop()
  const leaseTtlMs = 60_000
  const begun = Promise.withResolvers<void>()
  const gate = Promise.withResolvers<void>()
  const undone: number[] = []
  const definition = saga('interrupted', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .call('CALL', async () => {
      begun.resolve()
      await gate.promise
    })
    .undo(async (_s, { fence }) => {
      undone.push(fence)
    })
    .end()
  const here = await workshop.engine({ definitions: [definition], leaseTtlMs })
  const elsewhere = await workshop.engine({ definitions: [definition], leaseTtlMs })
  await here.sagas.run()
  const sagaId = await begin(workshop, here.sagas, definition, { input: {} })
  await begun.promise
  await elsewhere.sagas.turnBack({ sagaId, reason: 'cancelled', code: 'cancelled', actor: 'operator-1' })
  await elsewhere.sagas.drain()
  expect(undone).toEqual([])
  gate.resolve()
  // By then its lease would have run out.
  await workshop.clock.advance(leaseTtlMs)
  await elsewhere.sagas.drain()
  expect(await elsewhere.sagas.waitForEnd(sagaId, { timeoutMs: 20_000 })).toMatchObject({
    status: 'COMPENSATED',
    errorMessage: 'cancelled',
  })
  expect(undone).toHaveLength(1)
  expect(await rowOf(workshop, sagaId)).toMatchObject({ error_code: 'cancelled' })
})
