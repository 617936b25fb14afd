import { expect, test } from 'vitest'
import { saga } from './builder.ts'
import { begin, openWorkshop, rowOf, type WorldTx } from './testing/workshop.ts'

test('a saga that five executors died on is quarantined, and its step is not tried', async () => {
  await using workshop = await openWorkshop()
  let tries = 0
  const definition = saga('poison', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .call('CALL', async () => {
      tries += 1
    })
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const sagaId = await begin(workshop, sagas, definition, { input: {} })
  await workshop.database.pool.query('update saga_state set deaths = 5')
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'QUARANTINED', current_step: 'CALL' })
  expect(tries).toBe(0)
})
