import { present } from '@cloudphone/testing/present'
import { expect, test } from 'vitest'
import { claimBy, done, failed, type Open, only, pointOf, type StoreHarness, superseded } from './support.ts'

export function refusals<Transaction>(open: Open<Transaction>): void {
  const expectUntouched = async (
    harness: StoreHarness<Transaction>,
    sagaId: string,
    write: () => Promise<unknown>,
  ): Promise<void> => {
    const [before, log] = [await harness.read(sagaId), await harness.log(sagaId)]
    expect(await write()).toBeUndefined()
    const { nextRunInMs: _then, ...rest } = before
    expect(await harness.read(sagaId)).toMatchObject(rest)
    expect(await harness.log(sagaId)).toEqual(log)
  }

  test('under a fence after which another was given out', async () => {
    await using harness = await open()
    const { store } = harness
    const { sagaId, old } = await superseded(harness)
    await expectUntouched(harness, sagaId, () => store.checkpoint(pointOf(old, done)))
  })

  test('of a version that has moved on: a commit whose answer was lost counts once', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done))
    await expectUntouched(harness, sagaId, () => store.checkpoint(pointOf(row, done)))
  })

  test('of a saga that has ended', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const second = await store.checkpoint(pointOf(row, done))
    const ended = await store.checkpoint(pointOf(present(second), done))
    const point = pointOf(present(second), failed)
    await expectUntouched(harness, sagaId, () => store.checkpoint({ ...point, row: present(ended) }))
  })

  test('side by side: of two checkpoints of one row one counts', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const written = await Promise.all([
      store.checkpoint(pointOf(row, done)),
      store.checkpoint(pointOf(row, done)),
    ])
    expect(written.filter((one) => one !== undefined)).toHaveLength(1)
    expect(await harness.log(sagaId)).toHaveLength(1)
  })
}
