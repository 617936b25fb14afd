import { present } from '@cloudphone/testing/present'
import { expect, test } from 'vitest'
import { CONTRACT_SAGA, claimBy, done, failed, type Open, only, pointOf } from './support.ts'

export function claims<Transaction>(open: Open<Transaction>): void {
  test('what is due and free is claimed once, under the next fence', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const one = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(one.id)))
    expect(row).toMatchObject({ sagaId, fence: 1, version: 1, deaths: 0, stepIndex: 0, currentStep: 'FIRST' })
    expect(row.remainingMs).toBeGreaterThan(CONTRACT_SAGA.timeoutMs - 10_000)
    expect(row.replyDueInMs).toBeNull()
    expect(await store.claimFree(claimBy(one.id))).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: one.id, fence: 1, version: 1 })
  })

  test('what a living process holds is nobody else’s', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id)))
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(await harness.store.claimAny(claimBy(other.id))).toEqual([])
  })

  test('a lease that ran out is claimable by the sweep only, also from a living process', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ fence: 2, deaths: 0 })
  })

  test('the lease of a dead process is claimable at once', async () => {
    await using harness = await open()
    await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    only(await harness.store.claimFree(claimBy(one.id)))
    await one.die()
    expect(await harness.store.claimFree(claimBy(other.id))).toEqual([])
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ fence: 2 })
  })

  test('not more than asked for, the longest due first, and only known versions', async () => {
    await using harness = await open()
    const ids: string[] = []
    for (let nth = 0; nth < 3; nth += 1) {
      ids.push(await harness.start())
      await harness.advance(1_000)
    }
    const { id } = await harness.openExecutor()
    expect(
      await harness.store.claimFree(claimBy(id, { known: [`${CONTRACT_SAGA.type}:2`, 'other:1'] })),
    ).toEqual([])
    expect(await harness.store.claimFree(claimBy(id, { known: [] }))).toEqual([])
    const first = await harness.store.claimFree(claimBy(id, { limit: 2 }))
    expect(first.map(({ sagaId }) => sagaId)).toEqual(ids.slice(0, 2))
    const rest = await harness.store.claimAny(claimBy(id, { limit: 2 }))
    expect(rest.map(({ sagaId }) => sagaId)).toEqual(ids.slice(2))
  })

  test('what is not due, or has ended, is not claimed', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, failed))
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(2_000)
    const again = only(await store.claimFree(claimBy(id)))
    const second = await store.checkpoint(pointOf(again, done))
    await store.checkpoint(pointOf(present(second), done))
    expect(await harness.read(sagaId)).toMatchObject({ status: 'COMPLETED', leaseOwner: null })
    expect(await store.claimAny(claimBy(id))).toEqual([])
  })
}
