import { setTimeout as sleep } from 'node:timers/promises'
import type { Figure, Range } from '../harness/figure.ts'
import { familyCpuMs } from '../harness/processes.ts'
import type { Task } from '../harness/program.ts'
import { median } from '../harness/samples.ts'
import type { ContestantProcess } from './contestant-process.ts'
import { type Disturbances, type Others, watchOthers } from './others.ts'
import type { Stage } from './stage.ts'

const QUIET_LOOK_MS = 300
const QUIET_LOOKS = 5

/** What a round took, measured from outside. */
export interface Cost {
  /** Of the contestant's process, all of PostgreSQL and all of the broker. */
  readonly cpuMs: number
  /** Of the contestant's process alone. */
  readonly nodeMs: number
  readonly walBytes: number
  /** In the contestant's databases, with those of opening and closing: a few tens. */
  readonly commits: number
}

export interface Round<Outcome> {
  readonly outcome: Outcome
  readonly cost: Cost
}

/** One entry of an interleaved series. */
export interface Entry<Order, Outcome> {
  /** As marked rounds are named. */
  readonly name: string
  readonly contestant: ContestantProcess<Order, Outcome>
  readonly order: Order
  /** Whose commits count. */
  readonly databases: readonly string[]
}

export interface Setting {
  readonly stage: Stage
  readonly task: Task
  readonly rounds: number
  /** Of servers besides PostgreSQL whose work counts, such as the broker. */
  readonly servers?: readonly number[]
  /** Told of each round. */
  readonly disturbances: Disturbances
}

/**
 * Plays a warm-up and then `rounds` rounds of each entry, in turn: A B C A B C. Answers, per entry, its rounds.
 * @throws Error when a round is void.
 */
export async function playInTurn<Order, Outcome>(
  title: string,
  entries: readonly Entry<Order, Outcome>[],
  setting: Setting & { warmUp: (order: Order) => Order },
): Promise<Round<Outcome>[][]> {
  const { progress } = setting.task
  progress(`${title}: warming up ...`)
  for (const entry of entries) await playRound({ ...entry, order: setting.warmUp(entry.order) }, setting)
  const played: Round<Outcome>[][] = entries.map(() => [])
  for (let round = 1; round <= setting.rounds; round += 1) {
    progress(`${title}: round ${round} of ${setting.rounds} ...`)
    for (const [at, entry] of entries.entries()) {
      const { others, ...one } = await playRound(entry, setting)
      setting.disturbances.add({ title, entry: `${entry.name} ${round}`, others })
      played[at]?.push(one)
    }
  }
  return played
}

async function playRound<Order, Outcome>(
  { contestant, order, databases }: Entry<Order, Outcome>,
  { stage, servers = [] }: Setting,
): Promise<Round<Outcome> & { others: Others }> {
  const cpu = async (): Promise<{ all: number; node: number }> => {
    const [node = 0, ...others] = await Promise.all([contestant.pid, stage.pid, ...servers].map(familyCpuMs))
    return { node, all: others.reduce((sum, one) => sum + one, node) }
  }
  await contestant.clear(order)
  await stage.analyze(databases)
  await stage.checkpoint()
  const commitsBefore = await stage.commits(databases)
  await contestant.open(order)
  await quiet()
  const watch = await watchOthers()
  const [cpuBefore, walBefore] = [await cpu(), await stage.walBytes()]
  const outcome = await contestant.work(order)
  const [cpuAfter, walAfter] = [await cpu(), await stage.walBytes()]
  const others = await watch.end()
  await contestant.close()
  const cost = {
    cpuMs: cpuAfter.all - cpuBefore.all,
    nodeMs: cpuAfter.node - cpuBefore.node,
    walBytes: walAfter - walBefore,
    commits: (await stage.commits(databases)) - commitsBefore,
  }
  await contestant.audit(outcome)
  return { outcome, cost, others }
}

/** Waits until nobody else works, but not for ever: then the round is marked. */
async function quiet(): Promise<void> {
  for (let look = 0; look < QUIET_LOOKS; look += 1) {
    const watch = await watchOthers()
    await sleep(QUIET_LOOK_MS)
    if ((await watch.end()).share === 0) return
  }
}

/** The median of the rounds, with lowest and highest. */
export function spread(values: readonly number[]): { middle: number; range: Range } {
  return { middle: median(values), range: [Math.min(...values), Math.max(...values)] }
}

/** A figure of two series: medians with ranges. */
export function compare(
  name: string,
  { ours, peer, wanted }: { ours: readonly number[]; peer?: readonly number[]; wanted?: Figure['wanted'] },
): Figure {
  const [own, other] = [spread(ours), peer === undefined ? undefined : spread(peer)]
  return {
    name,
    ours: own.middle,
    oursRange: own.range,
    ...(other && { peer: other.middle, peerRange: other.range }),
    ...(wanted && { wanted }),
  }
}
