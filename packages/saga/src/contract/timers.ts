import { expect, test } from 'vitest'
import type { AskOutcome } from '../row.ts'
import { CONTRACT_SAGA, claimBy, failed, type Open, only, pointOf } from './support.ts'

export function timers<Transaction>(open: Open<Transaction>): void {
  const known = [`${CONTRACT_SAGA.type}:${CONTRACT_SAGA.version}`]

  test('the next due time is that of what nobody holds and is not due yet', async () => {
    await using harness = await open()
    const { store } = harness
    expect(await store.nextDueInMs(known)).toBeNull()
    await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    expect(await store.nextDueInMs(known)).toBeNull()
    await store.checkpoint(pointOf(row, failed))
    const dueInMs = await store.nextDueInMs(known)
    expect(dueInMs).toBeGreaterThan(0)
    expect(dueInMs).toBeLessThanOrEqual(2_000)
    expect(await store.nextDueInMs(['other:1'])).toBeNull()
    await harness.advance(2_000)
    // Due now: that is for a claim to find.
    expect(await store.nextDueInMs(known)).toBeNull()
  })

  test('the saga’s deadline passes by the clock of deadlines', async () => {
    await using harness = await open()
    await harness.start()
    const { id } = await harness.openExecutor()
    await harness.advance(CONTRACT_SAGA.timeoutMs)
    expect(only(await harness.store.claimFree(claimBy(id))).remainingMs).toBeLessThanOrEqual(0)
  })

  test('an ask waits for its reply until its own deadline', async () => {
    await using harness = await open()
    const { store } = harness
    await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, { kind: 'asked', withinMs: 5_000 }))
    expect(await store.claimAny(claimBy(id))).toEqual([])
    await harness.advance(5_000)
    const due = only(await store.claimFree(claimBy(id)))
    expect(due.reply).toBeNull()
    expect(due.replyDueInMs).toBeLessThanOrEqual(0)
    // A checkpoint that asks nothing ends the waiting.
    expect(await store.checkpoint(pointOf(due, failed))).toMatchObject({ replyDueInMs: null })
  })

  test('a reply makes the saga due, counts once, and is cleared by the next checkpoint', async () => {
    await using harness = await open()
    const { store } = harness
    const sagaId = await harness.start()
    const { id } = await harness.openExecutor()
    const row = only(await store.claimFree(claimBy(id)))
    await store.checkpoint(pointOf(row, { kind: 'asked', withinMs: 5_000 }))
    const reply: AskOutcome = { ok: true, result: { answer: 42 } }
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('accepted')
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('duplicate')
    const due = only(await store.claimFree(claimBy(id)))
    expect(due).toMatchObject({ reply, version: 3 })
    expect(due.replyDueInMs).toBeGreaterThan(0)
    const next = await store.checkpoint(pointOf(due, { kind: 'done', result: { answer: 42 } }))
    expect(next).toMatchObject({ reply: null, replyDueInMs: null, state: { answer: 42 } })
    expect(await harness.reply(sagaId, 'FIRST', reply)).toBe('duplicate')
    expect((await harness.log(sagaId)).map(({ status }) => status)).toEqual(['asked', 'done'])
  })

  test('a reply that nobody waits for is refused, and the refusal is logged once', async () => {
    await using harness = await open()
    const sagaId = await harness.start()
    const refusal: AskOutcome = { ok: false, error: { message: 'no room' } }
    expect(await harness.reply(sagaId, 'FIRST', refusal)).toBe('late')
    expect(await harness.reply(sagaId, 'FIRST', refusal)).toBe('duplicate')
    expect(await harness.reply('nobody', 'FIRST', refusal)).toBe('unknown')
    expect(await harness.log(sagaId)).toMatchObject([
      {
        step: 'FIRST',
        direction: 'do',
        attempt: 1,
        status: 'refused',
        error: 'late reply: no room',
        executor: null,
      },
    ])
  })
}
