import type { Figure } from '../harness/figure.ts'
import { percentile } from '../harness/samples.ts'
import type { EnqueueOrder, EnqueueOutcome } from './contenders/enqueue-order.ts'
import { startContestant } from './contestant-process.ts'
import { playInTurn, type Round, type Setting, spread } from './rounds.ts'
import { POOL_SIZE } from './sagas.ts'

const PER_SECOND = 200
/** Over all rounds of a contestant. */
const SAMPLES = 2_000

/** How soon what was asked for begins, at a fixed rate of arrivals. */
export async function measureEnqueue(
  setting: Setting,
  { share, profileDir }: { share: number; profileDir: string | undefined },
): Promise<Figure[]> {
  const { stage, rounds } = setting
  await using ours = startContestant<EnqueueOrder, EnqueueOutcome>({
    ...{ name: 'ours enqueue', module: 'ours-enqueue.ts', profileDir },
    settings: { url: await stage.database('bench_enqueue'), poolSize: POOL_SIZE },
  })
  await using graphile = startContestant<EnqueueOrder, EnqueueOutcome>({
    ...{ name: 'graphile-worker enqueue', module: 'graphile-enqueue.ts', profileDir },
    settings: { url: await stage.database('bench_graphile_enqueue'), poolSize: POOL_SIZE, concurrency: 16 },
  })
  await Promise.all([ours.setUp(), graphile.setUp()])
  const order = { count: Math.ceil((SAMPLES * share) / rounds), perSecond: PER_SECOND }
  const [own = [], other = []] = await playInTurn(
    'enqueue to first step',
    [
      { name: 'ours', contestant: ours, order, databases: ['bench_enqueue'] },
      { name: 'graphile-worker', contestant: graphile, order, databases: ['bench_graphile_enqueue'] },
    ],
    { ...setting, warmUp: ({ perSecond }) => ({ count: PER_SECOND / 2, perSecond }) },
  )
  return [figure('p50', 0.5, { own, other, limitMs: 3 }), figure('p99', 0.99, { own, other, limitMs: 15 })]
}

type Played = readonly Round<EnqueueOutcome>[]

/** Of all samples together; the range is that of the rounds. */
function figure(
  label: string,
  share: number,
  { own, other, limitMs }: { own: Played; other: Played; limitMs: number },
): Figure {
  const pooled = (rounds: Played) => rounds.flatMap(({ outcome }) => outcome.latenciesMs)
  const range = (rounds: Played) =>
    spread(rounds.map(({ outcome }) => percentile(outcome.latenciesMs, share))).range
  const samples = pooled(own)
  return {
    name: `enqueue to first step, ${label} of ${samples.length} at ${PER_SECOND}/s (ms); peer graphile-worker`,
    ours: percentile(samples, share),
    oursRange: range(own),
    peer: percentile(pooled(other), share),
    peerRange: range(other),
    wanted: { is: '<=', than: limitMs },
  }
}
