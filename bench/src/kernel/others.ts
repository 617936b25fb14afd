import { allProcesses, descendantsOf, type ProcessUse } from '../harness/processes.ts'

/** Whoever uses more of a core than this while a round runs makes its figures doubtful. */
const DISTURBING_SHARE = 0.05
/** A process is charged in ticks of 10 ms: two of them in a short look say nothing. */
const LEAST_MS = 20

/** What processes that are not ours used of one core, those below the threshold left out. */
export interface Others {
  readonly share: number
  readonly names: readonly string[]
}

/** Watches the processes that do not descend from this one. */
export async function watchOthers(): Promise<{ end(): Promise<Others> }> {
  const startedMs = performance.now()
  const before = await strangers()
  return {
    async end() {
      const elapsedMs = performance.now() - startedMs
      const disturbing = [...(await strangers()).values()].flatMap(({ pid, name, ownMs }) => {
        const usedMs = ownMs - (before.get(pid)?.ownMs ?? 0)
        const share = usedMs / elapsedMs
        return share > DISTURBING_SHARE && usedMs > LEAST_MS ? [{ name, share }] : []
      })
      return {
        share: disturbing.reduce((sum, { share }) => sum + share, 0),
        // What Node calls itself.
        names: [...new Set(disturbing.map(({ name }) => (name === 'MainThread' ? 'node' : name)))],
      }
    },
  }
}

async function strangers(): Promise<ReadonlyMap<number, ProcessUse>> {
  const all = await allProcesses()
  const ours = new Set([process.pid, ...descendantsOf(process.pid, all).map(({ pid }) => pid)])
  return new Map([...all].filter(([pid]) => !ours.has(pid)))
}

/** A round, such as `DBOS 2` of `sagas, 64 at once`, and who else worked meanwhile. */
export interface WatchedRound {
  readonly title: string
  readonly entry: string
  readonly others: Others
}

/** The rounds of a run, with those that others disturbed. */
export class Disturbances {
  readonly #rounds: WatchedRound[] = []

  add(round: WatchedRound): void {
    this.#rounds.push(round)
  }

  /** For the head of the report: which rounds to take with care. */
  toString(): string {
    const marked = this.#rounds.filter(({ others }) => others.share > 0)
    if (marked.length === 0) return `none of ${this.#rounds.length} rounds: nobody else used 5 % of a core`
    const titles = [...new Set(marked.map(({ title }) => title))]
    const lists = titles.map((wanted) => {
      const own = marked.filter(({ title }) => title === wanted)
      return `${wanted}: ${own.map(({ entry, others }) => `${entry} (${percent(others)})`).join(', ')}`
    })
    const names = [...new Set(marked.flatMap(({ others }) => others.names))].sort()
    return `${marked.length} of ${this.#rounds.length} rounds, so take them with care: others (${names.join(', ')}) used so much of a core: ${lists.join('; ')}`
  }
}

function percent({ share }: Others): string {
  return `${Math.round(share * 100)} %`
}
