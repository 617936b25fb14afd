import { systemClock } from '@cloudphone/observe/clock'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { saga } from './builder.ts'
import { until } from './testing/toy.ts'
import { begin, openWorkshop, rowOf, type WorldTx } from './testing/workshop.ts'

/* A lease is trusted for nine tenths of its time by our own clock, whatever the database says later: others may have begun. */

const leaseTtlMs = 60_000

test('a try whose lease can no longer be trusted is cut off', async () => {
  await using workshop = await openWorkshop()
  const fake = fakeClock(new Date())
  let stoodStillMs = 0
  const realClock = { ...fake, monotonicMs: () => fake.monotonicMs() + stoodStillMs }
  const begun = Promise.withResolvers<AbortSignal>()
  const gate = Promise.withResolvers<void>()
  const definition = saga('lingers', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .call('LINGER', async (_s, { signal }) => {
      begun.resolve(signal)
      await gate.promise
    })
    .end()
  const { sagas } = await workshop.engine({ definitions: [definition], realClock, leaseTtlMs })
  await sagas.run()
  const sagaId = await begin(workshop, sagas, definition, { input: {} })
  const signal = await begun.promise
  const claimed = await rowOf(workshop, sagaId)
  // The process stands still; then the look at the clock is due, and after it the next heartbeat.
  stoodStillMs = leaseTtlMs * 0.9
  await fake.advance(leaseTtlMs / 3)
  await until(async () => {
    const { lease_until: heldUntil } = await rowOf(workshop, sagaId)
    return signal.aborted || JSON.stringify(heldUntil) !== JSON.stringify(claimed.lease_until)
  })
  const wasCutOff = signal.aborted
  gate.resolve()
  expect(wasCutOff).toBe(true)
})

test('a process that stood still begins no try', async () => {
  await using workshop = await openWorkshop()
  const fences: number[] = []
  const definition = saga('stood_still', 1, { timeoutMs: 600_000 })
    .input<object, WorldTx>()
    .call('CALL', async (_s, { fence }) => {
      fences.push(fence)
    })
    .end()
  // No timer has run yet when the process goes on.
  let stoodStillMs = 0
  const realClock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + stoodStillMs }
  const crash = {
    reach: async (place: string) => {
      if (place === 'saga.after_claim') stoodStillMs = leaseTtlMs
    },
  }
  const { sagas } = await workshop.engine({ definitions: [definition], realClock, leaseTtlMs, crash })
  const sagaId = await begin(workshop, sagas, definition, { input: {} })
  await sagas.drain()
  expect(await rowOf(workshop, sagaId)).toMatchObject({ status: 'COMPLETED' })
  expect(fences).toEqual([2])
})
