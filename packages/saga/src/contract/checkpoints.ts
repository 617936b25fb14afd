import { present } from '@cloudphone/testing/present'
import { expect, test } from 'vitest'
import type { Outcome } from '../decide.ts'
import { CONTRACT_SAGA, claimBy, done, failed, type Open, only, pointOf } from './support.ts'

export function checkpoints<Transaction>(open: Open<Transaction>): void {
  test('a step done moves the saga on, keeps its result and its lease, and is logged', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const next = await store.checkpoint(pointOf(row, done))
    expect(next).toMatchObject({
      sagaId,
      status: 'RUNNING',
      currentStep: 'SECOND',
      stepIndex: 1,
      state: { first: 1 },
      fence: 1,
      version: 2,
      endedAt: null,
      reply: null,
    })
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: id, version: 2, state: { first: 1 } })
    expect(await harness.log(sagaId)).toEqual([
      {
        step: 'FIRST',
        direction: 'do',
        attempt: 1,
        status: 'done',
        error: null,
        executor: 'somebody',
        fence: 1,
      },
    ])
  })

  test('a try that failed gives the lease back until its retry is due', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    expect(await store.checkpoint(pointOf(row, failed))).toMatchObject({ attempt: 1, retryCount: 1 })
    const stored = await harness.read(sagaId)
    expect(stored.leaseOwner).toBeNull()
    expect(stored.nextRunInMs).toBeGreaterThan(0)
    expect(stored.nextRunInMs).toBeLessThanOrEqual(2_000)
  })

  test('a wait ends at the saga’s deadline where it can still turn back, and only there', async () => {
    await using harness = await open()
    const { store } = harness
    const { id } = await harness.openExecutor()
    const waits = async (untilTimeout: boolean): Promise<number> => {
      const sagaId = await harness.start()
      const row = only(await store.claimFree(claimBy(id)))
      const point = pointOf(row, failed)
      const next = { kind: 'wait', delayMs: 90_000, untilTimeout, replyWithinMs: null } as const
      await store.checkpoint({ ...point, decision: { ...point.decision, next } })
      return (await harness.read(sagaId)).nextRunInMs
    }
    const until = await waits(true)
    expect(until).toBeGreaterThan(CONTRACT_SAGA.timeoutMs - 10_000)
    expect(until).toBeLessThanOrEqual(CONTRACT_SAGA.timeoutMs)
    const beyond = await waits(false)
    expect(beyond).toBeGreaterThan(80_000)
    expect(beyond).toBeLessThanOrEqual(90_000)
  })

  test('a process that stops gives the lease back with its checkpoint, and the saga is due', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, done, { release: true }))
    expect(await harness.read(sagaId)).toMatchObject({ leaseOwner: null })
    expect(only(await store.claimFree(claimBy(id)))).toMatchObject({ fence: 2, currentStep: 'SECOND' })
  })

  test('turned back, undone and ended: what is decided is what stands there', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    const refused: Outcome = { kind: 'failed', error: { message: 'no', code: 'invalid', retryable: false } }
    const back = await store.checkpoint(pointOf(row, refused))
    expect(back).toMatchObject({
      status: 'COMPENSATING',
      direction: 'undo',
      undoIndex: 0,
      errorMessage: 'no',
      errorCode: 'invalid',
    })
    const ended = await store.checkpoint(pointOf(present(back), { kind: 'done' }))
    expect(ended).toMatchObject({ status: 'COMPENSATED', undoIndex: -1, version: 3 })
    expect(ended?.endedAt).toBeInstanceOf(Date)
    expect((await harness.log(sagaId)).map(({ direction, status }) => [direction, status])).toEqual([
      ['do', 'failed'],
      ['undo', 'done'],
    ])
  })
}
