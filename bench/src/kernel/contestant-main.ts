/* The process of one contestant: does what its parent asks, one thing at a time, and ends with it. */
import { writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'
import { type Contestant, type OpenContestant, VoidRound } from './contestant.ts'

/** What the parent tells at the start, as the only argument. */
export interface ContestantStart {
  /** URL of a module that exports `openContestant`. */
  readonly module: string
  readonly settings: unknown
  /** The beginning of the path under which V8 writes a profile of each round's work; none when absent. */
  readonly profile?: string
}

export interface Demand {
  readonly id: number
  readonly verb: keyof Contestant<unknown, unknown>
  readonly input: unknown
}

export type Answer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: string; readonly isVoid: boolean }

const start: ContestantStart = JSON.parse(process.argv[2] ?? '')
const { openContestant }: { openContestant: OpenContestant<unknown, unknown, unknown> } = await import(
  start.module
)
const contestant = openContestant(start.settings)
let profiles = 0

async function answer({ id, verb, input }: Demand): Promise<void> {
  const tell = (message: Answer): void => {
    process.send?.(message)
  }
  try {
    const result = verb === 'work' ? await work(input) : await contestant[verb](input)
    tell({ id, result })
  } catch (error) {
    const isVoid = error instanceof VoidRound
    const text = error instanceof Error && !isVoid ? error.stack : undefined
    tell({ id, error: text ?? (isVoid ? error.message : String(error)), isVoid })
  }
}

/** Only what is measured is profiled: not the loading of modules, nor the filling of tables. */
async function work(order: unknown): Promise<unknown> {
  if (start.profile === undefined) return await contestant.work(order)
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.start')
  try {
    return await contestant.work(order)
  } finally {
    const { profile } = await session.post('Profiler.stop')
    session.disconnect()
    profiles += 1
    await writeFile(`${start.profile}-${profiles}.cpuprofile`, JSON.stringify(profile))
  }
}

process.on('message', (demand: Demand) => void answer(demand))
// A parent that is gone must not leave us behind.
process.on('disconnect', () => process.exit(0))
