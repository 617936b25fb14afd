import { expect, test } from 'vitest'
import type { Weakness } from './model-store.ts'
import { describeFailure, EVERY_FAULT, EVERY_STATE, simulateMany } from './property.ts'

const seed = Number(process.env.CLOUDPHONE_SIMULATION_SEED ?? 20_261_120)
/** Too rare to be met in every 2,000 schedules; `npm run chaos -- simulation` insists on them. */
const RARE = new Set([
  'run given up for want of a database',
  'stale fence refused by the target',
  'late effect refused by a tombstone',
  'stale try by a process that had stood still',
])

test('2,000 schedules of crashes, freezes, lost and doubled messages break no invariant', {
  timeout: 300_000,
}, async () => {
  const report = await simulateMany({ schedules: 2_000, seed })
  if (report.failure !== undefined) expect.fail(describeFailure(report.failure))
  expect(report.schedules).toBe(2_000)
  // Schedules that meet nothing prove nothing.
  expect(EVERY_FAULT.filter((name) => report.faults[name] === undefined)).toEqual([])
  expect(EVERY_STATE.filter((name) => report.states[name] === undefined && !RARE.has(name))).toEqual([])
})

test('a seed plays the same schedules again, step for step', async () => {
  const one = await simulateMany({ schedules: 40, seed })
  expect(await simulateMany({ schedules: 40, seed })).toEqual(one)
})

const weaknesses: readonly Weakness[] = [
  'checkpoints ignore the fence',
  'checkpoints ignore the version',
  'claims ignore leases',
  'claims do not raise the fence',
  'effects survive a rollback',
  'giving back ignores the fence',
  'deaths are not counted',
  'deadlines do not wake',
]

test.each(weaknesses)('the simulation sees a store whose %s', { timeout: 300_000 }, async (weakness) => {
  const { failure } = await simulateMany({
    schedules: 1_000,
    seed: 1,
    weaknesses: new Set([weakness]),
    shrinks: 'not at all',
  })
  expect(failure?.violations).not.toEqual([])
  expect(failure).toBeDefined()
})

test('the simulation sees leases that are trusted too long: by clocks that go at half the speed', {
  timeout: 300_000,
}, async () => {
  const { failure } = await simulateMany({
    schedules: 1_000,
    seed: 1,
    shrinks: 'not at all',
    alter: (scenario) => ({ ...scenario, clocks: scenario.clocks.map(() => 0.5) }),
  })
  expect(failure?.violations.join()).toMatch(/tries .* (under fence|while)|lost its lease/)
})

test('a failure is told with its simplest schedule, and its path leads to it again', {
  timeout: 300_000,
}, async () => {
  const broken = {
    schedules: 100,
    seed: 1,
    weaknesses: new Set<Weakness>(['checkpoints ignore the version']),
  }
  const { failure } = await simulateMany(broken)
  if (failure === undefined) return expect.fail('it was not found')
  expect(failure.violations.join()).toMatch(/a checkpoint decided upon v\d+ overwrote v\d+/)
  const again = await simulateMany({ ...broken, path: failure.path })
  expect(again.failure?.timeline).toEqual(failure.timeline)
  // Simple enough to be read: the fault that it takes, and hardly another.
  const faults = failure.timeline.filter((line) => line.includes('** '))
  expect(faults.length).toBeGreaterThan(0)
  expect(faults.length).toBeLessThan(8)
  expect(describeFailure(failure)).toContain(`npm run chaos -- simulation --seed ${failure.seed} --path`)
})
