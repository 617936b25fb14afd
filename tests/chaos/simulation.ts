import { createHash, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Figure } from '@cloudphone/bench/harness/figure'
import { type Findings, type Suite, type Task, UsageError } from '@cloudphone/bench/harness/program'
import {
  describeFailure,
  EVERY_FAULT,
  EVERY_STATE,
  type SimulationReport,
  type SimulationRun,
  simulateMany,
} from '@cloudphone/saga/simulation/property'

const batchSchedules = 500
const tellEveryMs = 5_000
/** With fewer schedules the rarest states may be missed by chance. */
const coverageFrom = 20_000

/**
 * The real saga engine in a simulated world, one schedule after another on every processor: crashes, freezes, lost and
 * doubled messages at whatever await the seed picks. Stops at the first schedule that breaks an invariant, and tells it.
 */
export const simulation: Suite = {
  summary:
    'sagas in a simulated world: each schedule crashes, freezes, delays, loses and doubles what it can',
  options: {
    schedules: { default: '100000', help: 'how many are played' },
    seed: { default: '', help: 'of an earlier run, as it printed it (default: a new one)' },
    path: { default: '', help: 'of a failure, as it was printed with its seed: plays that one alone' },
  },
  run: async (task) => {
    const path = task.option('path')
    if (path !== '') return replay(task, path)
    const seed = task.option('seed') === '' ? randomInt(2 ** 31) : task.number('seed')
    task.progress(`seed ${seed}`)
    const startedMs = performance.now()
    const total = await playAll(task, seed)
    return findingsOf(total, { seed, tookMs: performance.now() - startedMs })
  },
}

/** One schedule, told line by line whether it fails or not. */
async function replay(task: Task, path: string): Promise<Findings> {
  if (task.option('seed') === '') throw new UsageError('--path needs the --seed that was printed with it')
  const seed = task.number('seed')
  const report = await simulateMany({ schedules: 1, seed, path })
  if (report.failure !== undefined) task.progress(describeFailure(report.failure))
  return {
    facts: { seed: String(seed), path },
    figures: [violationFigure(report)],
  }
}

async function playAll(task: Task, seed: number): Promise<SimulationReport> {
  const total: SimulationReport = { schedules: 0, steps: 0, faults: {}, states: {}, failure: undefined }
  const wanted = task.number('schedules')
  let handedOut = 0
  let batch = 0
  const nextRun = (): SimulationRun | undefined => {
    const schedules = Math.min(batchSchedules, wanted - handedOut)
    if (schedules <= 0 || total.failure !== undefined) return undefined
    handedOut += schedules
    batch += 1
    return { schedules, seed: seedOf(seed, batch) }
  }
  const startedMs = performance.now()
  let toldMs = startedMs
  const tell = (): void => {
    const nowMs = performance.now()
    if (nowMs - toldMs < tellEveryMs) return
    toldMs = nowMs
    const perSecond = Math.round((total.schedules / (nowMs - startedMs)) * 1_000)
    task.progress(`${total.schedules} of ${wanted} schedules, ${perSecond}/s`)
  }
  const processors = Math.min(availableParallelism(), Math.ceil(wanted / batchSchedules))
  await Promise.all(
    Array.from({ length: processors }, () =>
      work(nextRun, (report) => {
        merge(total, report)
        tell()
      }),
    ),
  )
  if (total.failure !== undefined) task.progress(describeFailure(total.failure))
  return total
}

/** A thread that plays batches until there are none. */
async function work(
  nextRun: () => SimulationRun | undefined,
  onReport: (report: SimulationReport) => void,
): Promise<void> {
  const worker = new Worker(new URL('./simulation-worker.ts', import.meta.url))
  try {
    for (let run = nextRun(); run !== undefined; run = nextRun()) {
      worker.postMessage(run)
      const [report]: SimulationReport[] = await once(worker, 'message')
      if (report === undefined) throw new Error('a worker ended without a report')
      onReport(report)
    }
  } finally {
    await worker.terminate()
  }
}

/** Batches of one seed must not overlap with those of its neighbours. */
function seedOf(seed: number, batch: number): number {
  return createHash('sha256').update(`${seed} ${batch}`).digest().readUInt32BE(0) >>> 1
}

function merge(total: SimulationReport, report: SimulationReport): void {
  total.schedules += report.schedules
  total.steps += report.steps
  total.failure ??= report.failure
  for (const part of ['faults', 'states'] as const) {
    for (const [name, count] of Object.entries(report[part]))
      total[part][name] = (total[part][name] ?? 0) + count
  }
}

function findingsOf(total: SimulationReport, { seed, tookMs }: { seed: number; tookMs: number }): Findings {
  const isEnough = total.schedules >= coverageFrom
  const told = (kind: string, names: readonly string[], counts: Record<string, number>): Figure[] =>
    names.map((name) => ({
      name: `${kind}: ${name}`,
      ours: counts[name] ?? 0,
      ...(isEnough && { wanted: { is: '>=', than: 1 } }),
    }))
  return {
    facts: { seed: String(seed), processors: String(availableParallelism()) },
    figures: [
      { name: 'schedules', ours: total.schedules, wanted: { is: '>=', than: 1 } },
      violationFigure(total),
      { name: 'schedules per second', ours: (total.schedules / tookMs) * 1_000 },
      { name: 'time (s)', ours: tookMs / 1_000 },
      { name: 'tasks per schedule', ours: total.steps / Math.max(1, total.schedules) },
      ...told('fault', EVERY_FAULT, total.faults),
      ...told('reached', EVERY_STATE, total.states),
    ],
  }
}

function violationFigure({ failure }: SimulationReport): Figure {
  return {
    name: 'schedules that break an invariant',
    ours: failure === undefined ? 0 : 1,
    wanted: { is: '<=', than: 0 },
  }
}
