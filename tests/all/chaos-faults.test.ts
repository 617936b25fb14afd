import { afterAll, beforeAll, expect, test } from 'vitest'
import { openGrounds } from '../chaos/faults/grounds.ts'
import { paceOf } from '../chaos/faults/pace.ts'
import { runScenario } from '../chaos/faults/run.ts'
import { scenarios } from '../chaos/faults/scenarios.ts'
import type { Grounds } from '../chaos/faults/stage.ts'
import { seededRandom } from '../chaos/random.ts'

/* A small part of `npm run chaos -- faults`. What is lost or doubled is judged here; how fast it was again is not: the
 * machines that run this have other things to do. */

const some = scenarios.filter(({ name }) => ['kills', 'postgres-half-open'].includes(name))
const secondsOf: Readonly<Record<string, number>> = { kills: 3, 'postgres-half-open': 8 }

let grounds: Grounds & AsyncDisposable
beforeAll(async () => {
  grounds = await openGrounds(some)
})
afterAll(() => grounds?.[Symbol.asyncDispose]())

test.each(some)(
  '$name: nothing is lost, doubled, out of order or given up',
  { timeout: 300_000 },
  async (scenario) => {
    const seconds = secondsOf[scenario.name] ?? 0
    const result = await runScenario(scenario, { grounds, seconds, rate: 5, random: seededRandom(1) })
    expect(result).toMatchObject({ complaints: [], dead: 0, quarantined: 0 })
    expect(result.struck).toBe(2)
    expect(result.sagas).toBeGreaterThan(20)
  },
)

test('the pace before, during and after a fault', () => {
  const at = (askedMs: number, endedMs: number) => ({ askedMs, endedMs })
  const works = [at(0, 100), at(400, 900), at(1_200, 3_500), at(3_100, 3_600), at(4_000, 4_200)]
  const phases = { baselineFromMs: 0, struckMs: 1_000, liftedMs: 3_000, endMs: 5_000 }
  expect(paceOf(works, phases)).toEqual({
    ...{ before: 2, during: 0, after: 1 },
    ...{ pauseMs: 2_500, firstMs: 500, backlogMs: 500 },
  })
})
