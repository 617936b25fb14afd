import { expect, test } from 'vitest'
import { claimBy, done, LEASE_MS, type Open, only, pointOf, superseded } from './support.ts'

export function leases<Transaction>(open: Open<Transaction>): void {
  test('renewals keep what is held, and say under which fence', async () => {
    await using harness = await open()
    const { store } = harness
    const ids = [await harness.start(), await harness.start(), await harness.start()]
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    await store.claimFree(claimBy(one.id, { leaseTtlMs: 0 }))
    const [taken] = await store.claimAny(claimBy(other.id, { limit: 1 }))
    const renewed = await store.renew({ executorId: one.id, sagaIds: ids, leaseTtlMs: LEASE_MS })
    expect([...renewed.keys()].sort()).toEqual(ids.filter((id) => id !== taken?.sagaId).sort())
    expect([...renewed.values()]).toEqual([1, 1])
    // What was renewed has not run out any more.
    expect(await store.claimAny(claimBy(other.id))).toEqual([])
    expect((await store.renew({ executorId: one.id, sagaIds: [], leaseTtlMs: LEASE_MS })).size).toBe(0)
  })

  test('a lease is given back for others, at once or after a while', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    only(await store.claimFree(claimBy(id)))
    await store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: null, version: 1 })
    only(await store.claimFree(claimBy(id)))
    await store.giveBack({ sagaId, fence: 2, delayMs: 3_000 })
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(3_000)
    expect(only(await store.claimFree(claimBy(id)))).toMatchObject({ fence: 3 })
  })

  test('a fence that is no longer current gives nothing back', async () => {
    await using harness = await open()
    const { store } = harness
    const { sagaId, owner } = await superseded(harness)
    await store.giveBack({ sagaId, fence: 1, delayMs: 5_000 })
    const stored = await harness.read(sagaId)
    expect(stored).toMatchObject({ leaseOwner: owner.id, fence: 2 })
    expect(stored.nextRunInMs).toBeLessThanOrEqual(0)
    await store.giveBack({ sagaId, fence: 2, delayMs: 0 })
    await store.giveBack({ sagaId, fence: 2, delayMs: 5_000 })
    expect((await harness.read(sagaId)).nextRunInMs).toBeLessThanOrEqual(0)
  })

  test('a saga is read by whoever holds it, and by nobody else', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done))
    expect(await store.readHeld({ sagaId, fence: 1, executorId: id })).toMatchObject({
      version: 2,
      currentStep: 'SECOND',
      state: { first: 1 },
    })
    expect(await store.readHeld({ sagaId, fence: 2, executorId: id })).toBeUndefined()
    expect(await store.readHeld({ sagaId, fence: 1, executorId: 'another' })).toBeUndefined()
    await store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    expect(await store.readHeld({ sagaId, fence: 1, executorId: id })).toBeUndefined()
  })
}
