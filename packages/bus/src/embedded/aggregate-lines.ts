import type { Verdict } from '../bus.ts'
import type { Claimed } from './deliveries.ts'

/** A delivery and what became of it, to be written to the database. */
export interface Finished {
  readonly delivery: Claimed
  readonly verdict: Verdict
  /** It was tried and comes again, so its aggregate stands still until that is written. */
  readonly breaks: boolean
}

/**
 * Runs the deliveries that one consumer has in hand: those of one aggregate one after the other, others side by side.
 * When one is to be tried again, those behind it are released, so that none of them overtakes it.
 */
export interface AggregateLines {
  add(delivery: Claimed): void
  /** How many are in hand: running, waiting in their line, or finished and not yet settled. */
  readonly inHand: number
  /** What has finished since the last call. `settled` must follow once it is written. */
  takeFinished(): readonly Finished[]
  settled(finished: readonly Finished[]): void
  /** What could not be written is finished still. */
  notSettled(finished: readonly Finished[]): void
  /** Starts nothing more: what waits in line is released. */
  close(): void
}

export interface LinesOptions {
  readonly run: (delivery: Claimed) => Promise<Verdict>
  readonly onFinished: () => void
}

export function openAggregateLines({ run, onFinished }: LinesOptions): AggregateLines {
  const lines = new Map<string, Claimed[]>()
  // Aggregates with a retry that is not yet written: a claim that was under way may still bring in their next delivery.
  const broken = new Set<string>()
  let finished: Finished[] = []
  let inHand = 0
  let closed = false

  const finish = (one: Finished): void => {
    finished.push(one)
    onFinished()
  }

  const runLine = async (aggregate: string, line: Claimed[]): Promise<void> => {
    for (let next = line.shift(); next !== undefined; next = line.shift()) {
      const halted = closed || broken.has(aggregate)
      const verdict = halted ? { verdict: 'release' as const } : await run(next)
      const breaks = !halted && (verdict.verdict === 'retry' || verdict.verdict === 'release')
      if (breaks) broken.add(aggregate)
      finish({ delivery: next, verdict, breaks })
    }
    lines.delete(aggregate)
  }

  return {
    get inHand() {
      return inHand
    },
    add(delivery) {
      inHand += 1
      const line = lines.get(delivery.aggregate)
      if (line !== undefined) {
        line.push(delivery)
        return
      }
      const own = [delivery]
      lines.set(delivery.aggregate, own)
      // `run` never rejects: it turns errors into verdicts.
      void runLine(delivery.aggregate, own)
    },
    takeFinished() {
      const taken = finished
      finished = []
      return taken
    },
    settled(written) {
      inHand -= written.length
      for (const { delivery, breaks } of written) {
        if (breaks) broken.delete(delivery.aggregate)
      }
    },
    notSettled(unwritten) {
      finished = [...unwritten, ...finished]
    },
    close() {
      closed = true
    },
  }
}
