import type { Figure } from '../harness/figure.ts'
import { median, percentile } from '../harness/samples.ts'
import type { Broker } from './broker.ts'
import type { EventOrder, EventOutcome } from './contenders/event-order.ts'
import type { RabbitOrder, RabbitOutcome } from './contenders/ours-rabbit.ts'
import { startContestant } from './contestant-process.ts'
import { compare, playInTurn, type Round, type Setting, spread } from './rounds.ts'
import { POOL_SIZE } from './sagas.ts'

const EVENTS = { ours: 20_000, rowByRow: 2_000 }
const IN_FLIGHT = 64
const STEADY_SHARE = 0.6

interface RabbitOptions {
  readonly broker: Broker
  /** Of the full amount of work. */
  readonly share: number
  readonly profileDir: string | undefined
}

/** From rows that wait in the outbox to confirmed messages, in order for each thing, beside the plain loop. */
export async function measureRelay(setting: Setting, options: RabbitOptions): Promise<Figure[]> {
  const { stage } = setting
  const { broker, share, profileDir } = options
  const [oursHost, plainHost] = await broker.virtualHosts('relay', 'row by row')
  const [oursUrl, plainUrl] = [await stage.database('bench_relay'), await stage.database('bench_rows')]
  await using ours = startContestant<EventOrder, EventOutcome>({
    ...{ name: 'relay', module: 'ours-relay.ts', profileDir },
    settings: { url: oursUrl, brokerUrl: oursHost, poolSize: POOL_SIZE },
  })
  await using plain = startContestant<EventOrder, EventOutcome>({
    ...{ name: 'row by row', module: 'row-by-row.ts', profileDir },
    settings: { url: plainUrl, brokerUrl: plainHost, poolSize: POOL_SIZE },
  })
  await Promise.all([ours.setUp(), plain.setUp()])
  const order = (events: number): EventOrder => ({ events: Math.round(events * share), taking: 'batch' })
  const [own = [], other = []] = await playInTurn(
    'outbox to RabbitMQ',
    [
      { name: 'relay', contestant: ours, order: order(EVENTS.ours), databases: ['bench_relay'] },
      { name: 'row by row', contestant: plain, order: order(EVENTS.rowByRow), databases: ['bench_rows'] },
    ],
    {
      ...{ ...setting, servers: [broker.pid] },
      warmUp: ({ events, taking }) => ({ events: Math.round(events / 5), taking }),
    },
  )
  const perSecond = (rounds: readonly Round<EventOutcome>[]) =>
    rounds.map(({ outcome }) => (outcome.events * 1000) / outcome.elapsedMs)
  const cpu = (rounds: readonly Round<EventOutcome>[]) =>
    rounds.map(({ outcome, cost }) => cost.cpuMs / outcome.events)
  return [
    compare('outbox to RabbitMQ, confirmed, ordered per aggregate, events/s; peer row by row', {
      ...{ ours: perSecond(own), peer: perSecond(other), wanted: { is: '>=', than: 10, of: 'ratio' } },
    }),
    compare('CPU-ms an event to RabbitMQ, the broker included; peer row by row', {
      ...{ ours: cpu(own), peer: cpu(other) },
    }),
  ]
}

/** From the COMMIT of a business transaction to the committed effect elsewhere, over RabbitMQ, at 60 % of what it can. */
export async function measureRabbitLatency(
  setting: Setting,
  { broker, share, profileDir }: RabbitOptions,
): Promise<Figure[]> {
  const { stage } = setting
  const [brokerUrl] = await broker.virtualHosts('journey')
  const url = await stage.database('bench_journey')
  const consumerUrl = await stage.database('bench_journey_end')
  await using ours = startContestant<RabbitOrder, RabbitOutcome>({
    ...{ name: 'outbox and RabbitMQ', module: 'ours-rabbit.ts', profileDir },
    settings: { url, consumerUrl, brokerUrl, poolSize: POOL_SIZE },
  })
  await ours.setUp()
  const servers = [broker.pid]
  const entry = (order: RabbitOrder) => ({
    ...{ name: 'ours', contestant: ours, order, databases: ['bench_journey', 'bench_journey_end'] },
  })
  const durationMs = Math.round(2_000 * share)
  const [full = []] = await playInTurn(
    `commit to effect over RabbitMQ, ${IN_FLIGHT} in flight`,
    [entry({ load: 'capacity', concurrency: IN_FLIGHT, durationMs })],
    { ...setting, servers, warmUp: (order) => order },
  )
  const capacities = full.map(({ outcome }) => (outcome.events * 1000) / outcome.elapsedMs)
  const perSecond = Math.max(1, Math.round(STEADY_SHARE * median(capacities)))
  // Together at least 2,000 samples, and at least two seconds a round.
  const count = Math.round(Math.max(2_000 / setting.rounds, 2 * perSecond) * share)
  const [steady = []] = await playInTurn(
    `commit to effect over RabbitMQ, ${perSecond}/s`,
    [entry({ load: 'steady', perSecond, count })],
    { ...setting, servers, warmUp: (order) => order },
  )
  const all = steady.flatMap(({ outcome }) => outcome.latenciesMs)
  const at = `at ${perSecond}/s, 60 % of capacity, of ${all.length}`
  return [
    compare(`commit to effect over RabbitMQ, capacity with ${IN_FLIGHT} in flight, events/s`, {
      ours: capacities,
    }),
    {
      name: `commit to effect over RabbitMQ, p50 ${at} (ms)`,
      ours: median(all),
      oursRange: spread(steady.map(({ outcome }) => outcome.p50Ms)).range,
      wanted: { is: '<=', than: 10 },
    },
    {
      name: `commit to effect over RabbitMQ, p99 ${at} (ms)`,
      ours: percentile(all, 0.99),
      oursRange: spread(steady.map(({ outcome }) => outcome.p99Ms)).range,
      wanted: { is: '<=', than: 50 },
    },
    compare('CPU-ms a journey over RabbitMQ, the broker included', {
      ours: steady.map(({ outcome, cost }) => cost.cpuMs / outcome.events),
    }),
    compare('of these in the Node process, which writes and consumes', {
      ours: steady.map(({ outcome, cost }) => cost.nodeMs / outcome.events),
    }),
  ]
}
