/* The process of one contestant: does what its parent asks, one thing at a time, and ends with it. */
import { type Contestant, type OpenContestant, VoidRound } from './contestant.ts'

/** What the parent tells at the start, as the only argument. */
export interface ContestantStart {
  /** URL of a module that exports `openContestant`. */
  readonly module: string
  readonly settings: unknown
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

async function answer({ id, verb, input }: Demand): Promise<void> {
  const tell = (message: Answer): void => {
    process.send?.(message)
  }
  try {
    tell({ id, result: await contestant[verb](input) })
  } catch (error) {
    const isVoid = error instanceof VoidRound
    const text = error instanceof Error && !isVoid ? error.stack : undefined
    tell({ id, error: text ?? (isVoid ? error.message : String(error)), isVoid })
  }
}

process.on('message', (demand: Demand) => void answer(demand))
// A parent that is gone must not leave us behind; an orderly exit also writes the profile, when one is taken.
process.on('disconnect', () => process.exit(0))
