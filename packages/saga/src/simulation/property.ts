/* Many schedules, drawn from a seed: the property that fast-check tests, what was met on the way, and a failure told so
 * that it can be read and had again. */
import { silentLog } from '@cloudphone/observe/log'
import fc from 'fast-check'
import { choices } from './choices.ts'
import type { Weakness } from './model-store.ts'
import { scenario as drawnScenario, type Scenario } from './shapes.ts'
import { simulate } from './simulate.ts'

export interface SimulationRun {
  readonly schedules: number
  /** The same seed draws the same schedules. */
  readonly seed: number
  /** Where in the seed's schedules a failure was found, as it was printed: replays it alone. */
  readonly path?: string | undefined
  /** Lets the store be broken, to show that this is seen. */
  readonly weaknesses?: ReadonlySet<Weakness> | undefined
  /** Changes what was drawn, to show that the simulation sees a world that is not as the engine takes it to be. */
  readonly alter?: (scenario: Scenario) => Scenario
  /** Ends at the first failure without looking for a simpler one. */
  readonly shrinks?: 'to the simplest' | 'not at all'
}

export interface SimulationReport {
  schedules: number
  /** Tasks that were run, faults included. */
  steps: number
  /** How often each kind of fault struck. */
  readonly faults: Record<string, number>
  /** How often each state was reached. */
  readonly states: Record<string, number>
  failure: SimulationFailure | undefined
}

export interface SimulationFailure {
  readonly seed: number
  readonly path: string
  /** The number of the schedule within its seed, from 1. */
  readonly schedule: number
  readonly violations: readonly string[]
  /** The simplest schedule that fails, line by line. */
  readonly timeline: readonly string[]
  /** What was simulated, and the choices made. */
  readonly counterexample: string
}

/** What a schedule can do to the world. */
export const EVERY_FAULT: readonly string[] = [
  'process killed',
  'process frozen',
  'process stopped',
  'session lost',
  'database out of reach',
  'database restarted',
  'request lost',
  'request timed out',
  'reply lost',
  'serialization failure',
  'effect request lost',
  'effect request doubled',
  'effect reply lost',
  'bus message doubled',
  'hint lost',
  'delayed',
]

/** Where schedules must get to, or they are too tame. */
export const EVERY_STATE: readonly string[] = [
  'COMPLETED',
  'COMPENSATED',
  'COMPENSATION_STUCK',
  'QUARANTINED',
  'alarm: stuck',
  'alarm: quarantined',
  'alarm: no_return',
  'turned back',
  'deadline flipped it',
  'taken over after its lease',
  'taken over from a dead executor',
  'death counted',
  'stopped cleanly',
  'run given up for want of a database',
  'effect repeated, and found there',
  'undo of what never was',
  'stale fence refused by the target',
  'late effect refused by a tombstone',
  'stale try by a process that had stood still',
  'tries side by side, one of a process that stood still',
  'reply accepted',
  'reply duplicate',
  'reply late',
]

/** The most decisions that a schedule draws; after them everything goes its ordinary way, until all has come to rest. */
const MAX_CHOICES = 400

/** Plays so many schedules, or the one that a path names, and stops at the first that breaks an invariant. */
export async function simulateMany(run: SimulationRun): Promise<SimulationReport> {
  const {
    schedules,
    seed,
    path,
    weaknesses = new Set(),
    alter = (one) => one,
    shrinks = 'to the simplest',
  } = run
  const report: SimulationReport = { schedules: 0, steps: 0, faults: {}, states: {}, failure: undefined }
  const log = silentLog()
  const property = fc.asyncProperty(drawnScenario, choices(MAX_CHOICES), async (drawn, choices) => {
    const result = await simulate({ scenario: alter(drawn), choices, weaknesses, log })
    report.schedules += 1
    report.steps += result.steps
    add(report.faults, result.faults)
    add(report.states, result.states)
    return result.violations.length === 0
  })
  const details = await withoutStacks(() =>
    fc.check(property, {
      seed,
      numRuns: schedules,
      endOnFailure: shrinks === 'not at all',
      ...(path === undefined ? {} : { path }),
    }),
  )
  if (details.counterexample !== null && details.counterexamplePath !== null) {
    const [drawn, choices] = details.counterexample
    const timeline: string[] = []
    const { violations } = await simulate({
      scenario: alter(drawn),
      choices,
      weaknesses,
      log,
      trace: (line) => timeline.push(line),
    })
    report.failure = {
      seed: details.seed,
      path: details.counterexamplePath,
      schedule: details.numRuns,
      violations,
      timeline,
      counterexample: fc.stringify(details.counterexample),
    }
  }
  return report
}

/** A failure for a person: what is wrong, the timeline, and how to have it again. */
export function describeFailure({
  seed,
  path,
  violations,
  timeline,
  counterexample,
}: SimulationFailure): string {
  return [
    'A simulated schedule breaks an invariant:',
    ...violations.map((violation) => `  - ${violation}`),
    '',
    ...timeline,
    '',
    `simulated: ${counterexample}`,
    `again:     npm run chaos -- simulation --seed ${seed} --path ${path}`,
  ].join('\n')
}

function add(to: Record<string, number>, counts: ReadonlyMap<string, number>): void {
  for (const [name, count] of counts) to[name] = (to[name] ?? 0) + count
}

/** Thousands of errors are made to be caught; their stacks would take a tenth of the time. */
async function withoutStacks<Result>(work: () => Promise<Result>): Promise<Result> {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return await work()
  } finally {
    Error.stackTraceLimit = limit
  }
}
