import { afterAll, beforeAll, expect, test } from 'vitest'
import { saga } from './builder.ts'
import { PermanentError } from './errors.ts'
import { begin, openWorkshop, rowOf, type Workshop, type WorldTx } from './testing/workshop.ts'

let workshop: Workshop
beforeAll(async () => {
  workshop = await openWorkshop()
})
afterAll(() => workshop[Symbol.asyncDispose]())

const definition = saga('edges', 1, { timeoutMs: 600_000 })
  .input<{ fails: boolean }, WorldTx>()
  .call('ONLY', async ({ fails }) => {
    if (fails) throw new PermanentError('no', 'no')
  })
  .end()

test.each([
  ['COMPLETED', false, 'RUNNING'],
  ['COMPLETED', false, 'COMPENSATING'],
  ['COMPENSATED', true, 'RUNNING'],
  ['COMPENSATED', true, 'COMPENSATION_STUCK'],
] as const)(
  'trap 11: what has ended %s is not resurrected by whatever writes to it',
  async (end, fails, to) => {
    const { sagas } = await workshop.engine({ definitions: [definition] })
    const sagaId = await begin(workshop, sagas, definition, { input: { fails }, businessKey: `${end} ${to}` })
    await sagas.drain()
    const before = await rowOf(workshop, sagaId)
    expect(before).toMatchObject({ status: end })
    const undoIndex = to === 'RUNNING' ? null : 0
    await expect(
      workshop.database.pool.query(
        `update saga_state set status = $2, direction = $3, undo_index = $4, ended_at = null where saga_id = $1`,
        [sagaId, to, undoIndex === null ? 'do' : 'undo', undoIndex],
      ),
    ).rejects.toThrow(`Saga ${sagaId} cannot go from ${end} to ${to}`)
    expect(await rowOf(workshop, sagaId)).toEqual(before)
  },
)
