import { randomInt } from 'node:crypto'
import type { Figure } from '@cloudphone/bench/harness/figure'
import { type Suite, UsageError } from '@cloudphone/bench/harness/program'
import { openGrounds } from './faults/grounds.ts'
import { type Result, runScenario } from './faults/run.ts'
import { type Scenario, scenarios } from './faults/scenarios.ts'
import type { Complaint } from './kernel/auditor.ts'
import { heedInterruption } from './kernel/field.ts'
import { seededRandom } from './random.ts'

/** How slow it may be again, beside itself before the fault. */
const RECOVERED = 0.8
const RECOVERED_WITHIN_MS = 10_000

/** Faults on real servers, again and again, under a load that goes on. */
export const faults: Suite = {
  summary: 'faults of real servers and processes under a constant load of sagas and events',
  options: {
    only: { default: '', help: `one scenario: ${scenarios.map(({ name }) => name).join(', ')}` },
    seconds: { default: '15', help: 'how long the faults of a scenario last, about' },
    rate: { default: '10', help: 'sagas asked for per second, and twice as many events' },
    seed: { default: '', help: 'the choices of an earlier run, as it printed them (default: new ones)' },
  },
  run: async (task) => {
    const wanted = scenariosNamed(task.option('only'))
    const seed = task.option('seed') === '' ? randomInt(2 ** 31) : task.number('seed')
    task.progress(`seed ${seed}`)
    const startedMs = performance.now()
    const results: Result[] = []
    using interruption = heedInterruption()
    await using grounds = await openGrounds(wanted)
    for (const scenario of wanted) {
      if (interruption.isOn)
        throw new Error(`interrupted after ${results.length} of ${wanted.length} scenarios`)
      task.progress(`${scenario.name}: ${scenario.summary}`)
      const random = seededRandom(seed)
      const [seconds, rate] = [task.number('seconds'), task.number('rate')]
      const result = await runScenario(scenario, { grounds, seconds, rate, random })
      results.push(result)
      task.progress(linesOf(result))
    }
    const minutes = (performance.now() - startedMs) / 60_000
    return { facts: { seed: String(seed) }, figures: figuresOf(results, minutes) }
  },
}

function scenariosNamed(only: string): readonly Scenario[] {
  const found = scenarios.filter(({ name }) => only === '' || name === only)
  if (found.length > 0) return found
  throw new UsageError(
    `--only: there is no '${only}'; there are ${scenarios.map(({ name }) => name).join(', ')}`,
  )
}

function linesOf({ struck, pace, complaints, sagas, effects, durationMs }: Result): string {
  const { before, during, after, firstMs, pauseMs, backlogMs } = pace
  const rates = [before, during, after].map((rate) => rate.toFixed(1)).join(', ')
  const head = `  ${struck} faults, ${sagas} sagas, ${effects} effects; sagas/s before, during, after: ${rates}; pause ${Math.round(pauseMs)} ms, next end after ${Math.round(firstMs)} ms, backlog gone after ${Math.round(backlogMs)} ms; ${Math.round(durationMs / 1_000)} s`
  return [head, ...complaints.map(({ kind, text }) => `  ${kind}: ${text}`)].join('\n')
}

function figuresOf(results: readonly Result[], minutes: number): Figure[] {
  const none = { is: '<=', than: 0 } as const
  const complaints = results.flatMap((result) => result.complaints)
  const count = (...kinds: Complaint['kind'][]): number =>
    complaints.filter(({ kind }) => kinds.includes(kind)).length
  const sum = (of: (result: Result) => number): number =>
    results.reduce((total, result) => total + of(result), 0)
  return [
    { name: `scenarios run, of ${scenarios.length}`, ours: results.length, wanted: { is: '>=', than: 1 } },
    {
      name: 'scenarios without their fault',
      ours: results.filter((one) => one.struck === 0).length,
      wanted: none,
    },
    { name: 'sagas', ours: sum((one) => one.sagas) },
    { name: 'effects of events', ours: sum((one) => one.effects) },
    { name: 'lost', ours: count('lost'), wanted: none },
    { name: 'duplicated', ours: count('doubled'), wanted: none },
    { name: 'leaked', ours: count('leaked'), wanted: none },
    { name: 'out of order', ours: count('disordered'), wanted: none },
    { name: 'under a stale fence', ours: count('stale'), wanted: none },
    { name: 'stuck', ours: count('stuck'), wanted: none },
    { name: 'quarantined', ours: sum((one) => one.quarantined), wanted: none },
    { name: 'dead letters', ours: sum((one) => one.dead), wanted: none },
    ...results.flatMap(figuresOfOne),
    { name: 'duration (min)', ours: minutes, wanted: { is: '<', than: 15 } },
  ]
}

/** The peer of each is the same figure before the fault. */
function figuresOfOne({ scenario, pace }: Result): Figure[] {
  const { name } = scenario
  const { before, during, after, firstMs, pauseMs, backlogMs } = pace
  return [
    { name: `${name}: sagas/s during the faults`, ours: during, peer: before },
    {
      name: `${name}: sagas/s 5 to 10 s after the last`,
      ours: after,
      peer: before,
      wanted: { is: '>=', than: RECOVERED, of: 'ratio' },
    },
    { name: `${name}: longest pause (ms)`, ours: pauseMs },
    {
      name: `${name}: first end of a saga after the last (ms)`,
      ours: firstMs,
      wanted: { is: '<=', than: RECOVERED_WITHIN_MS },
    },
    { name: `${name}: backlog gone after the last (ms)`, ours: backlogMs },
  ]
}
