import { randomInt } from 'node:crypto'
import type { Figure } from '@cloudphone/bench/harness/figure'
import type { Suite } from '@cloudphone/bench/harness/program'
import type { CellResult } from './kernel/cell.ts'
import { type Cell, type Fault, faults, matrix, nameOf, smoke, timing, visitsOf } from './kernel/cells.ts'
import { runCells } from './kernel/field.ts'
import { seededRandom } from './random.ts'

/** The issue's: the lease and two seconds. */
const takeOverWithinMs = timing.leaseMs + 2_000

/** The crash matrix: every named point of the kernel, every fault that can act there, one instance and two. */
export const kernel: Suite = {
  summary: 'every crash point of the kernel, every fault that can act there, one instance and two',
  options: {
    only: { default: '', help: 'cells whose name has this in it, such as "outbox.after_publish kill"' },
    seed: {
      default: '',
      help: 'the visits at which an earlier run struck, as it printed them (default: new ones)',
    },
  },
  switches: { smoke: 'a representative part, in under 90 s' },
  run: async (task) => {
    const seed = task.option('seed') === '' ? randomInt(2 ** 31) : task.number('seed')
    task.progress(`seed ${seed}`)
    const { cells: all, excluded } = matrix()
    const wanted = task.isOn('smoke') ? smoke(all) : all
    const cells = wanted.filter((cell) => nameOf(cell).includes(task.option('only')))
    const startedMs = performance.now()
    const results = await runCells({ cells, nthOf: nthBy(seed), progress: task.progress })
    const spentMs = performance.now() - startedMs
    return {
      facts: {
        seed: String(seed),
        ...Object.fromEntries(
          excluded.map(({ cells, what, reason }, at) => [
            `left out ${at + 1}`,
            `${cells} x ${what}: ${reason}`,
          ]),
        ),
      },
      figures: figuresOf(results, { spentMs, of: all.length }),
    }
  },
}

/** The visit at which a cell's fault happens: decided by the seed and the cell's name, whatever else is run. */
export function nthBy(seed: number): (cell: Cell) => number {
  return (cell) => {
    const letters = [...nameOf(cell)].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 2 ** 31, 7)
    return 1 + Math.floor(seededRandom(seed + letters)() * visitsOf(cell))
  }
}

function figuresOf(
  results: readonly CellResult[],
  { spentMs, of }: { spentMs: number; of: number },
): Figure[] {
  const count = (...kinds: string[]): number =>
    results.flatMap(({ complaints }) => complaints).filter(({ kind }) => kinds.includes(kind)).length
  const none = { is: '<=', than: 0 } as const
  return [
    { name: `cells run, of ${of}`, ours: results.length, wanted: { is: '>=', than: 1 } },
    {
      name: 'cells whose fault did not happen',
      ours: results.filter(({ fired, cell }) => fired < cell.times).length,
      wanted: none,
    },
    { name: 'lost', ours: count('lost'), wanted: none },
    { name: 'duplicated', ours: count('doubled'), wanted: none },
    { name: 'leaked', ours: count('leaked'), wanted: none },
    { name: 'out of order, or under a stale fence', ours: count('disordered', 'stale'), wanted: none },
    { name: 'stuck', ours: count('stuck'), wanted: none },
    {
      name: 'effects that a stale owner tried and the provider refused',
      ours: results.reduce((sum, { refused }) => sum + refused, 0),
    },
    ...(Object.keys(faults) as Fault[]).flatMap((fault) => takeOverOf(fault, results)),
    { name: 'duration (min)', ours: spentMs / 60_000, wanted: { is: '<', than: 30 } },
  ]
}

function takeOverOf(fault: Fault, results: readonly CellResult[]): Figure[] {
  const times = results
    .filter(({ cell }) => cell.fault === fault)
    .flatMap(({ takeOverMs }) => takeOverMs ?? [])
  if (times.length === 0) return []
  const slowest = { name: `slowest take-over, ${faults[fault]} (ms)`, ours: Math.max(...times) }
  // Promised is the take-over from the dead. A frozen process is dead to nobody until its lease has run out, one without
  // connections has lost its own way to the database too, and without a database nobody takes over.
  if (fault !== 'kill') return [slowest]
  const nearlyAll = times.toSorted((one, other) => one - other)[Math.ceil(times.length * 0.95) - 1] ?? 0
  return [
    {
      name: `take-over, ${faults[fault]}, 95 of 100 within (ms)`,
      ours: nearlyAll,
      wanted: { is: '<=', than: takeOverWithinMs },
    },
    slowest,
  ]
}
