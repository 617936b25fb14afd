import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { saga } from './builder.ts'
import { claimFree } from './claim.ts'
import { begin, openWorkshop, type WorldTx } from './testing/workshop.ts'

test('a saga that is being claimed is left to its claimant, and not waited for', async () => {
  await using workshop = await openWorkshop()
  const definition = saga('wanted', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .local('ONLY', async () => undefined)
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition] })
  const ids = [
    await begin(workshop, sagas, definition, { input: {}, businessKey: 'first' }),
    await begin(workshop, sagas, definition, { input: {}, businessKey: 'second' }),
  ]
  const claim = (tx: WorldTx, executorId: string, limit: number) =>
    claimFree(tx, { executorId, known: ['wanted:1'], formerIds: [], limit, suspects: 1, leaseTtlMs: 60_000 })
  const { database } = workshop
  const claimed = await database.transaction(async (tx) => {
    const own = await claim(tx, 'one', 1)
    const others = await database.transaction(async (other) => {
      await sql`set local lock_timeout = '2s'`.execute(other)
      return await claim(other, 'other', 2)
    })
    return [own, others].map((rows) => rows.map(({ sagaId }) => sagaId))
  })
  expect(claimed.map((own) => own.length)).toEqual([1, 1])
  expect(claimed.flat().toSorted()).toEqual(ids.toSorted())
})
