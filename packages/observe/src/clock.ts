import { setTimeout as delay } from 'node:timers/promises'

/** Where a part gets its time from: injected, so that a test moves it instead of waiting for it. */
export interface Clock {
  /** Wall-clock time, for what is stored or shown. */
  now(): Date
  /** Milliseconds since an arbitrary point; never goes backwards. For durations and timeouts. */
  monotonicMs(): number
  /** Resolves after `ms` milliseconds; rejects with the signal's reason as soon as it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** The machine's own time. */
export const systemClock: Clock = {
  now: () => new Date(),
  monotonicMs: () => performance.now(),
  async sleep(ms, signal) {
    try {
      await delay(ms, undefined, signal === undefined ? {} : { signal })
    } catch (error) {
      // Node rejects with its own AbortError; the port promises the caller's reason.
      if (signal?.aborted) throw signal.reason
      throw error
    }
  },
}
