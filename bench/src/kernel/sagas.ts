import type { Figure } from '../harness/figure.ts'
import type { LoopOutcome } from '../harness/samples.ts'
import { median } from '../harness/samples.ts'
import type { SagaOrder } from './contenders/saga-order.ts'
import { startContestant } from './contestant-process.ts'
import { type Cost, compare, type Entry, playInTurn, type Round, type Setting } from './rounds.ts'

/** Of every contestant, and what PostgreSQL has cores for several times over. */
export const POOL_SIZE = 20
const AT_ONCE = 64

const THROUGHPUT_MS = 4_000
const LATENCY_MS = 2_000

/** Five durable steps: how many sagas a second with 64 in flight, and how long one takes alone. */
export async function measureSagas(
  setting: Setting,
  { share, profileDir }: { share: number; profileDir: string | undefined },
): Promise<Figure[]> {
  const { stage } = setting
  const [oursUrl, dbosUrl] = [await stage.database('bench_sagas'), await stage.database('bench_dbos')]
  await using ours = startContestant<SagaOrder, LoopOutcome>({
    ...{ name: 'ours', module: 'ours-sagas.ts', settings: { url: oursUrl, poolSize: POOL_SIZE }, profileDir },
  })
  await using dbos = startContestant<SagaOrder, LoopOutcome>({
    ...{ name: 'DBOS', module: 'dbos-sagas.ts', settings: { url: dbosUrl, poolSize: POOL_SIZE }, profileDir },
  })
  await Promise.all([ours.setUp(), dbos.setUp()])
  const entries = (load: Pick<SagaOrder, 'concurrency' | 'durationMs'>): Entry<SagaOrder, LoopOutcome>[] => [
    {
      name: 'ours',
      contestant: ours,
      order: { steps: 'call', start: 'alone', ...load },
      databases: ['bench_sagas'],
    },
    {
      name: 'DBOS',
      contestant: dbos,
      order: { steps: 'call', start: 'alone', ...load },
      databases: ['bench_dbos'],
    },
    {
      name: 'ours, local',
      contestant: ours,
      order: { steps: 'local', start: 'alone', ...load },
      databases: ['bench_sagas'],
    },
    {
      name: 'ours, in a transaction',
      contestant: ours,
      order: { steps: 'call', start: 'transaction', ...load },
      databases: ['bench_sagas'],
    },
  ]
  const warmUp = (order: SagaOrder): SagaOrder => ({
    ...order,
    durationMs: Math.min(1_000, order.durationMs),
  })
  const many = await playInTurn(
    `sagas, ${AT_ONCE} at once`,
    entries({ concurrency: AT_ONCE, durationMs: Math.round(THROUGHPUT_MS * share) }),
    { ...setting, warmUp },
  )
  const one = await playInTurn(
    'sagas, one at a time',
    entries({ concurrency: 1, durationMs: Math.round(LATENCY_MS * share) }),
    { ...setting, warmUp },
  )
  return [...throughputFigures(many), ...latencyFigures(one)]
}

type Played = readonly Round<LoopOutcome>[]

function throughputFigures([
  call = [],
  dbos = [],
  local = [],
  inTransaction = [],
]: readonly Played[]): Figure[] {
  const perSecond = (rounds: Played) =>
    rounds.map(({ outcome }) => (outcome.count * 1000) / outcome.elapsedMs)
  const each = (rounds: Played, what: keyof Cost) =>
    rounds.map(({ outcome, cost }) => cost[what] / outcome.count)
  return [
    compare(`sagas/s, 5 call steps, ${AT_ONCE} at once; peer DBOS`, {
      ...{ ours: perSecond(call), peer: perSecond(dbos), wanted: { is: '>=', than: 5, of: 'ratio' } },
    }),
    compare(`sagas/s, 5 local steps, ${AT_ONCE} at once; peer DBOS`, {
      ...{ ours: perSecond(local), peer: perSecond(dbos) },
    }),
    compare(`sagas/s, 5 call steps, started in the caller's transaction, ${AT_ONCE} at once; peer DBOS`, {
      ...{ ours: perSecond(inTransaction), peer: perSecond(dbos) },
    }),
    ...(['call', 'local'] as const).flatMap((steps) => {
      const rounds = steps === 'call' ? call : local
      return [
        compare(`CPU-ms a saga, 5 ${steps} steps; peer DBOS`, {
          ...{ ours: each(rounds, 'cpuMs'), peer: each(dbos, 'cpuMs') },
        }),
        compare(`of these in the Node process, 5 ${steps} steps; peer DBOS`, {
          ...{ ours: each(rounds, 'nodeMs'), peer: each(dbos, 'nodeMs') },
        }),
        compare(`commits a saga, 5 ${steps} steps; peer DBOS`, {
          ...{ ours: each(rounds, 'commits'), peer: each(dbos, 'commits') },
        }),
        compare(`WAL bytes a saga, 5 ${steps} steps; peer DBOS`, {
          ...{ ours: each(rounds, 'walBytes'), peer: each(dbos, 'walBytes') },
        }),
      ]
    }),
  ]
}

function latencyFigures([call = [], dbos = [], local = [], inTransaction = []]: readonly Played[]): Figure[] {
  const medians = (rounds: Played) => rounds.map(({ outcome }) => median(outcome.latenciesMs))
  return [
    compare('one saga alone, 5 call steps, start to end seen, p50 (ms); peer DBOS', {
      ...{ ours: medians(call), peer: medians(dbos), wanted: { is: '<=', than: 0.5, of: 'ratio' } },
    }),
    compare('one saga alone, 5 local steps, start to end seen, p50 (ms); peer DBOS', {
      ...{ ours: medians(local), peer: medians(dbos) },
    }),
    compare("one saga alone, 5 call steps, started in the caller's transaction, p50 (ms); peer DBOS", {
      ...{ ours: medians(inTransaction), peer: medians(dbos) },
    }),
  ]
}
