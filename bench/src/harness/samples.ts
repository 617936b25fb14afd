import { setTimeout as sleep } from 'node:timers/promises'

/**
 * The smallest sample that at least `share` of all samples do not exceed (nearest rank): with 200 samples, p99 is the
 * third worst. NaN without samples.
 */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((one, other) => one - other)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
}

/** The nearest-rank median; NaN without samples. */
export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5)
}

/** Runs a piece of work and tells how long it took. */
export async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; value: T }> {
  const startedMs = performance.now()
  const value = await work()
  return { ms: performance.now() - startedMs, value }
}

/**
 * Sends `count` requests at a fixed rate, whatever the answers take, and measures each from the moment at which it was
 * due: a server that stalls is charged for all that had to wait (no coordinated omission).
 * @throws AggregateError when a request failed, after all have ended.
 */
export async function openLoop<T>(options: {
  count: number
  perSecond: number
  send: (index: number) => Promise<T>
}): Promise<{ ms: number; value: T }[]> {
  const { count, perSecond, send } = options
  const startedMs = performance.now()
  const sent = new Underway<{ ms: number; value: T }>()
  for (let index = 0; index < count; index += 1) {
    const dueMs = startedMs + (index * 1000) / perSecond
    const earlyMs = dueMs - performance.now()
    if (earlyMs > 0) await sleep(earlyMs)
    sent.add(send(index).then((value) => ({ ms: performance.now() - dueMs, value })))
  }
  return sent.all()
}

/** Pieces of work that nobody waits for yet: a failure is kept for `all`, instead of ending the process. */
export class Underway<T> {
  readonly #results: Promise<PromiseSettledResult<T>[]>[] = []

  add(work: Promise<T>): void {
    this.#results.push(Promise.allSettled([work]))
  }

  /** All results, in order of `add`. @throws AggregateError when a piece failed, after all have ended. */
  async all(): Promise<T[]> {
    const ended = (await Promise.all(this.#results)).flat()
    const errors = ended.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
    if (errors.length > 0)
      throw new AggregateError(errors, `${errors.length} of ${ended.length} failed, first: ${errors[0]}`)
    return ended.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  }
}

/** What a closed loop did. */
export interface LoopOutcome {
  readonly count: number
  /** Until the last one had ended. */
  readonly elapsedMs: number
  /** Of each, from its beginning. */
  readonly latenciesMs: readonly number[]
}

/** Keeps `concurrency` pieces of work in flight for `durationMs`, and then lets them end. */
export async function closedLoop(options: {
  concurrency: number
  durationMs: number
  once: () => Promise<unknown>
}): Promise<LoopOutcome> {
  const { concurrency, durationMs, once } = options
  const latenciesMs: number[] = []
  const startedMs = performance.now()
  const line = async (): Promise<void> => {
    while (performance.now() - startedMs < durationMs) {
      const beganMs = performance.now()
      await once()
      latenciesMs.push(performance.now() - beganMs)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, line))
  return { count: latenciesMs.length, elapsedMs: performance.now() - startedMs, latenciesMs }
}
