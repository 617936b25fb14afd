import type { Figure } from '../harness/figure.ts'
import type { EventOrder, EventOutcome } from './contenders/event-order.ts'
import { type ContestantProcess, startContestant } from './contestant-process.ts'
import { compare, type Entry, playInTurn, type Round, type Setting } from './rounds.ts'
import { POOL_SIZE } from './sagas.ts'

/** Jobs in hand of the peers, as our consumers' default. */
const JOBS_AT_ONCE = 16

/** About three seconds of work for each. */
const EVENTS = { ours: 10_000, graphile: 6_000, graphileBatch: 10_000, pgBoss: 2_500, pgBossBatch: 20_000 }

/** From rows that wait in the outbox to effects committed elsewhere, over the embedded bus, beside two job queues. */
export async function measureEmbedded(
  setting: Setting,
  { share, profileDir }: { share: number; profileDir: string | undefined },
): Promise<Figure[]> {
  const { stage } = setting
  const coreUrl = await stage.database('bench_core')
  const consumerUrl = await stage.database('bench_consumer')
  const jobs = { poolSize: POOL_SIZE, concurrency: JOBS_AT_ONCE }
  const start = (name: string, module: string, settings: unknown) =>
    startContestant<EventOrder, EventOutcome>({ name, module, settings, profileDir })
  await using ours = start('outbox and embedded bus', 'ours-embedded.ts', {
    ...{ coreUrl, consumerUrl, poolSize: POOL_SIZE },
  })
  await using graphile = start('graphile-worker', 'graphile-jobs.ts', {
    ...{ url: await stage.database('bench_graphile'), ...jobs },
  })
  await using pgBoss = start('pg-boss', 'pg-boss-jobs.ts', {
    url: await stage.database('bench_boss'),
    ...jobs,
  })
  await Promise.all([ours, graphile, pgBoss].map((one) => one.setUp()))
  const entry = (
    contestant: ContestantProcess<EventOrder, EventOutcome>,
    order: EventOrder,
    ...databases: string[]
  ): Entry<EventOrder, EventOutcome> => ({
    name: order.taking === 'batch' && contestant !== ours ? `${contestant.name}, batched` : contestant.name,
    contestant,
    order: { ...order, events: Math.round(order.events * share) },
    databases,
  })
  const played = await playInTurn(
    'outbox to effect, embedded',
    [
      entry(ours, { events: EVENTS.ours, taking: 'batch' }, 'bench_core', 'bench_consumer'),
      entry(graphile, { events: EVENTS.graphile, taking: 'one' }, 'bench_graphile'),
      entry(pgBoss, { events: EVENTS.pgBoss, taking: 'one' }, 'bench_boss'),
      entry(graphile, { events: EVENTS.graphileBatch, taking: 'batch' }, 'bench_graphile'),
      entry(pgBoss, { events: EVENTS.pgBossBatch, taking: 'batch' }, 'bench_boss'),
    ],
    { ...setting, warmUp: (order) => ({ ...order, events: Math.round(order.events / 5) }) },
  )
  return figuresOf(played)
}

type Played = readonly Round<EventOutcome>[]

function figuresOf(played: readonly Played[]): Figure[] {
  const [ours = [], graphile = [], pgBoss = [], graphileBatch = [], pgBossBatch = []] = played
  const perSecond = (rounds: Played) =>
    rounds.map(({ outcome }) => (outcome.events * 1000) / outcome.elapsedMs)
  const cpu = (rounds: Played) => rounds.map(({ outcome, cost }) => cost.cpuMs / outcome.events)
  const commits = (rounds: Played) => rounds.map(({ outcome, cost }) => cost.commits / outcome.events)
  const wanted = { is: '>=', than: 2, of: 'ratio' } as const
  const way = 'outbox to committed effect, embedded bus, events/s'
  return [
    compare(`${way}; peer graphile-worker, one job a time`, {
      ...{ ours: perSecond(ours), peer: perSecond(graphile), wanted },
    }),
    compare(`${way}; peer pg-boss, one job a transaction`, {
      ...{ ours: perSecond(ours), peer: perSecond(pgBoss), wanted },
    }),
    compare(`${way}; peer graphile-worker, batched`, {
      ours: perSecond(ours),
      peer: perSecond(graphileBatch),
    }),
    compare(`${way}; peer pg-boss, batched`, { ours: perSecond(ours), peer: perSecond(pgBossBatch) }),
    compare('CPU-ms an event, embedded bus; peer graphile-worker, one job a time', {
      ...{ ours: cpu(ours), peer: cpu(graphile) },
    }),
    compare('CPU-ms an event, embedded bus; peer pg-boss, one job a transaction', {
      ...{ ours: cpu(ours), peer: cpu(pgBoss) },
    }),
    compare('commits an event, embedded bus; peer graphile-worker, one job a time', {
      ...{ ours: commits(ours), peer: commits(graphile) },
    }),
  ]
}
