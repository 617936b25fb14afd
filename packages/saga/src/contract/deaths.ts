import { expect, test } from 'vitest'
import { claimBy, done, LEASE_MS, type Open, only, pointOf, type StoreHarness } from './support.ts'

/** Claims by process after process, each of which dies on it; answers the row as the last one found it. */
async function kill<Transaction>(harness: StoreHarness<Transaction>, times: number): Promise<void> {
  for (let nth = 0; nth < times; nth += 1) {
    const executor = await harness.openExecutor()
    only(await harness.store.claimAny(claimBy(executor.id)))
    await executor.die()
  }
}

export function deaths<Transaction>(open: Open<Transaction>): void {
  test('each process that dies soon after it began counts, until the next checkpoint', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    await kill(harness, 2)
    const last = await harness.openExecutor()
    const row = only(await harness.store.claimAny(claimBy(last.id)))
    expect(row).toMatchObject({ deaths: 2, fence: 3 })
    expect(await harness.store.checkpoint(pointOf(row, done))).toMatchObject({ deaths: 0 })
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 0 })
  })

  test('a lease that ran out, one’s own former session and a long life are no death', async () => {
    await using harness = await open()
    await harness.start()
    const one = await harness.openExecutor()
    only(await harness.store.claimFree(claimBy(one.id, { leaseTtlMs: 0 })))
    const two = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(two.id)))).toMatchObject({ deaths: 0 })
    await two.die()
    const three = await harness.openExecutor()
    const row = only(await harness.store.claimAny(claimBy(three.id, { formerIds: [two.id] })))
    expect(row).toMatchObject({ deaths: 0 })
    // Its last renewal was half an hour after it began.
    await harness.store.renew({
      executorId: three.id,
      sagaIds: [row.sagaId],
      leaseTtlMs: LEASE_MS + 1_800_000,
    })
    await three.die()
    const four = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(four.id)))).toMatchObject({ deaths: 0 })
  })

  test('a death that was only a lost session is taken back by the process that lives', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    await kill(harness, 1)
    const cut = await harness.openExecutor()
    only(await harness.store.claimAny(claimBy(cut.id)))
    await cut.die()
    const other = await harness.openExecutor()
    expect(only(await harness.store.claimAny(claimBy(other.id)))).toMatchObject({ deaths: 2 })
    await harness.store.forgive([cut.id, 'another'])
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 1 })
    // Twice is once.
    await harness.store.forgive([cut.id])
    expect(await harness.read(sagaId)).toMatchObject({ deaths: 1, fence: 3 })
  })

  test('whoever has killed twice is claimed where there is room for a suspect, one at a time', async () => {
    await using harness = await open()
    await harness.start()
    await kill(harness, 2)
    const later = await harness.openExecutor()
    // Dead processes are noticed when they are taken over from.
    const suspect = only(await harness.store.claimAny(claimBy(later.id)))
    expect(suspect.deaths).toBe(2)
    await harness.store.giveBack({ sagaId: suspect.sagaId, fence: suspect.fence, delayMs: 0 })
    const healthy = await harness.start()
    const without = await harness.store.claimFree(claimBy(later.id, { suspects: 0 }))
    expect(without.map(({ sagaId }) => sagaId)).toEqual([healthy])
    // Beside a limit that is used up: suspects have a place of their own.
    const withOne = await harness.store.claimFree(claimBy(later.id, { limit: 0, suspects: 1 }))
    expect(withOne.map(({ sagaId }) => sagaId)).toEqual([suspect.sagaId])
  })
}
