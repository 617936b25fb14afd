import { expect, test } from 'vitest'
import { describeFailure, simulateMany } from './property.ts'

const seed = Number(process.env.CLOUDPHONE_SIMULATION_SEED ?? 3)

test('2,000 schedules of crashes, freezes, lost and doubled messages break no invariant', {
  timeout: 120_000,
}, async () => {
  const report = await simulateMany({ schedules: 2_000, seed })
  if (report.failure !== undefined) expect.fail(describeFailure(report.failure))
  expect(report.schedules).toBe(2_000)
})
