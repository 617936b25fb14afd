import type { Clock } from '@cloudphone/observe/clock'

/**
 * The deadlines of all tries in hand, on one timer: nearly all of them are taken back long before they come, and a timer
 * with an abort signal for each took a sixth of the engine's time.
 */
export interface Deadlines {
  /** Calls `onPassed` after so many milliseconds of the clock, in a turn of its own. Returns what takes it back. */
  after(ms: number, onPassed: () => void): () => void
  close(): void
}

interface Deadline {
  readonly atMs: number
  readonly onPassed: () => void
}

/** A timer of more than 2^31 ms would fire at once. */
const MAX_NAP_MS = 3_600_000

export function openDeadlines(clock: Clock): Deadlines {
  const all = new Set<Deadline>()
  let nap: { readonly untilMs: number; readonly over: AbortController } | undefined
  let closed = false

  const firePassed = (): void => {
    const nowMs = clock.monotonicMs()
    for (const deadline of all) {
      if (deadline.atMs > nowMs) continue
      all.delete(deadline)
      deadline.onPassed()
    }
  }

  /** Sleeps until the nearest deadline as it is known now; one that comes earlier cuts the sleep short. */
  const sleepOn = (): void => {
    nap?.over.abort()
    nap = undefined
    if (closed || all.size === 0) return
    const nowMs = clock.monotonicMs()
    let untilMs = nowMs + MAX_NAP_MS
    for (const { atMs } of all) untilMs = Math.min(untilMs, atMs)
    const own = { untilMs, over: new AbortController() }
    nap = own
    clock.sleep(Math.max(0, untilMs - nowMs), own.over.signal).then(
      () => {
        if (nap !== own) return
        nap = undefined
        firePassed()
        sleepOn()
      },
      () => undefined, // cut short
    )
  }

  return {
    after(ms, onPassed) {
      const deadline = { atMs: clock.monotonicMs() + ms, onPassed }
      all.add(deadline)
      if (nap === undefined || deadline.atMs < nap.untilMs) sleepOn()
      return () => all.delete(deadline)
    },
    close() {
      closed = true
      sleepOn()
    },
  }
}
