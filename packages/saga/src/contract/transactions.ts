import { expect, test } from 'vitest'
import { claimBy, done, failed, LEASE_MS, type Open, only, pointOf, superseded } from './support.ts'

export function transactions<Transaction>(open: Open<Transaction>): void {
  test('an effect and its checkpoint are committed together', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const next = await store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      const next = await store.checkpointIn(tx, pointOf(row, done))
      // Nobody else sees it before the commit.
      expect(await harness.things()).toEqual([])
      expect(await harness.read(sagaId)).toMatchObject({ version: 1 })
      return next
    })
    expect(next).toMatchObject({ version: 2, currentStep: 'SECOND' })
    expect(await harness.things()).toEqual(['effect'])
    expect(await harness.read(sagaId)).toMatchObject({ version: 2, state: { first: 1 } })
    expect(await harness.log(sagaId)).toHaveLength(1)
  })

  test('what throws leaves neither, and its error is the caller’s', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const work = store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      await store.checkpointIn(tx, pointOf(row, done))
      throw new Error('the hook failed')
    })
    await expect(work).rejects.toThrow('the hook failed')
    expect(await harness.things()).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ version: 1, state: {} })
    expect(await harness.log(sagaId)).toEqual([])
  })

  test('a stale fence is refused in a transaction as well, which then rolls back', async () => {
    await using harness = await open()
    const { store } = harness
    const { sagaId, old, owner } = await superseded(harness)
    const work = store.transaction(async (tx) => {
      await harness.put(tx, 'effect')
      const next = await store.checkpointIn(tx, pointOf(old, done))
      if (next === undefined) throw new Error('refused')
    })
    await expect(work).rejects.toThrow('refused')
    expect(await harness.things()).toEqual([])
    expect(await harness.read(sagaId)).toMatchObject({ fence: 2, version: 1, leaseOwner: owner.id })
  })

  test('a row in a transaction is left out by claims and renewals, and waited for by other writes', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const [one, other] = [await harness.openExecutor(), await harness.openExecutor()]
    const row = only(await store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    const [read, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const committed = store.transaction(async (tx) => {
      const next = await store.checkpointIn(tx, pointOf(row, done))
      read.resolve()
      await go.promise
      return next
    })
    await read.promise
    expect(await store.claimAny(claimBy(other.id))).toEqual([])
    const renewed = await store.renew({ executorId: one.id, sagaIds: [sagaId], leaseTtlMs: LEASE_MS })
    expect([...renewed]).toEqual([])
    expect(await store.readHeld({ sagaId, fence: 1, executorId: one.id })).toMatchObject({ version: 1 })
    const late = store.checkpoint(pointOf(row, failed))
    const given = store.giveBack({ sagaId, fence: 1, delayMs: 0 })
    go.resolve()
    expect(await committed).toMatchObject({ version: 2 })
    expect(await late).toBeUndefined()
    await given
    expect(await harness.read(sagaId)).toMatchObject({ version: 2, leaseOwner: null })
  })
}
