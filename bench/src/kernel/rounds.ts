import { setTimeout as sleep } from 'node:timers/promises'
import type { Figure, Range } from '../harness/figure.ts'
import { allProcesses, descendantsOf, familyCpuMs, type ProcessUse } from '../harness/processes.ts'
import type { Task } from '../harness/program.ts'
import { median } from '../harness/samples.ts'
import type { ContestantProcess } from './contestant-process.ts'
import type { Stage } from './stage.ts'

/** Whoever uses more of a core than this while a round runs makes its figures doubtful. */
const DISTURBING_SHARE = 0.05
const QUIET_LOOK_MS = 300
const QUIET_LOOKS = 5

/** What a round took, measured from outside. */
export interface Cost {
  /** Of the contestant's process, all of PostgreSQL and all of the broker. */
  readonly cpuMs: number
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
  /** Filled with a line for each round that others disturbed. */
  readonly disturbances: string[]
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
  for (const entry of entries)
    await playRound({ ...entry, order: setting.warmUp(entry.order) }, { ...setting, disturbances: [] })
  const played: Round<Outcome>[][] = entries.map(() => [])
  for (let round = 1; round <= setting.rounds; round += 1) {
    progress(`${title}: round ${round} of ${setting.rounds} ...`)
    for (const [at, entry] of entries.entries()) {
      const label = `${title}, ${entry.contestant.name}, round ${round}`
      played[at]?.push(await playRound(entry, setting, label))
    }
  }
  return played
}

async function playRound<Order, Outcome>(
  { contestant, order, databases }: Entry<Order, Outcome>,
  { stage, servers = [], disturbances }: Setting,
  label = contestant.name,
): Promise<Round<Outcome>> {
  const commits = async (): Promise<number> => {
    const counts = await Promise.all(databases.map((database) => stage.commits(database)))
    return counts.reduce((sum, one) => sum + one, 0)
  }
  const cpu = async (): Promise<number> => {
    const all = await Promise.all([contestant.pid, stage.pid, ...servers].map(familyCpuMs))
    return all.reduce((sum, one) => sum + one, 0)
  }
  await contestant.clear(order)
  await stage.checkpoint()
  const commitsBefore = await commits()
  await contestant.open(order)
  await quiet()
  const others = await watchOthers()
  const [cpuBefore, walBefore] = [await cpu(), await stage.walBytes()]
  const outcome = await contestant.work(order)
  const [cpuAfter, walAfter] = [await cpu(), await stage.walBytes()]
  const disturbed = await others.end()
  if (disturbed.length > 0) disturbances.push(`${label}: ${disturbed.join(', ')}`)
  await contestant.close()
  const cost = {
    cpuMs: cpuAfter - cpuBefore,
    walBytes: walAfter - walBefore,
    commits: (await commits()) - commitsBefore,
  }
  await contestant.audit(outcome)
  return { outcome, cost }
}

/** Waits until nobody else works, but not for ever: then the round is marked. */
async function quiet(): Promise<void> {
  for (let look = 0; look < QUIET_LOOKS; look += 1) {
    const others = await watchOthers()
    await sleep(QUIET_LOOK_MS)
    if ((await others.end()).length === 0) return
  }
}

/** Watches the processes that are not ours. */
async function watchOthers(): Promise<{ end(): Promise<string[]> }> {
  const startedMs = performance.now()
  const before = await strangers()
  return {
    async end() {
      const elapsedMs = performance.now() - startedMs
      return [...(await strangers()).values()].flatMap(({ pid, name, ownMs }) => {
        const share = (ownMs - (before.get(pid)?.ownMs ?? 0)) / elapsedMs
        // A tick is 10 ms: one of them in a short look is no disturbance.
        return share > Math.max(DISTURBING_SHARE, 20 / elapsedMs)
          ? [`${name} ${Math.round(share * 100)} %`]
          : []
      })
    },
  }
}

async function strangers(): Promise<ReadonlyMap<number, ProcessUse>> {
  const all = await allProcesses()
  const ours = new Set([process.pid, ...descendantsOf(process.pid, all).map(({ pid }) => pid)])
  return new Map([...all].filter(([pid]) => !ours.has(pid)))
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
