import { setImmediate as turn } from 'node:timers/promises'
import type { Clock } from '@cloudphone/observe/clock'

interface Sleeper {
  wakeAtMs: number
  order: number
  wake(): void
}

/** A clock that stands still until a test moves it. */
export interface FakeClock extends Clock {
  /**
   * Moves time by `ms`, waking sleepers in the order in which they are due, each at its own moment and with
   * time to go on (and sleep again) before the next. Resolves when all that were due have been woken.
   */
  advance(ms: number): Promise<void>
  /** How many sleep now: to wait until a loop has come to rest. */
  sleeping(): number
  /** Resolves when at least `count` sleep. */
  whenSleeping(count: number): Promise<void>
}

/** Opens a clock at `start` (the epoch's first day of 2026 when absent). */
export function fakeClock(start: Date = new Date('2026-01-01T00:00:00Z')): FakeClock {
  let elapsedMs = 0
  let order = 0
  const sleepers = new Set<Sleeper>()
  const watchers = new Set<() => void>()

  const due = (untilMs: number): Sleeper | undefined =>
    [...sleepers]
      .filter(({ wakeAtMs }) => wakeAtMs <= untilMs)
      .sort((one, other) => one.wakeAtMs - other.wakeAtMs || one.order - other.order)[0]

  return {
    now: () => new Date(start.getTime() + elapsedMs),
    monotonicMs: () => elapsedMs,
    sleeping: () => sleepers.size,
    sleep(ms, signal) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason)
        const abort = (): void => {
          sleepers.delete(sleeper)
          reject(signal?.reason)
        }
        order += 1
        const sleeper: Sleeper = {
          wakeAtMs: elapsedMs + Math.max(0, ms),
          order,
          wake() {
            sleepers.delete(sleeper)
            signal?.removeEventListener('abort', abort)
            resolve()
          },
        }
        signal?.addEventListener('abort', abort, { once: true })
        sleepers.add(sleeper)
        for (const watcher of watchers) watcher()
      })
    },
    async advance(ms) {
      const untilMs = elapsedMs + ms
      for (let next = due(untilMs); next !== undefined; next = due(untilMs)) {
        elapsedMs = Math.max(elapsedMs, next.wakeAtMs)
        next.wake()
        // Whoever was woken runs on to its next await, and may go to sleep again before `untilMs`.
        await turn()
      }
      elapsedMs = untilMs
    },
    whenSleeping(count) {
      return new Promise((resolve) => {
        const look = (): void => {
          if (sleepers.size < count) return
          watchers.delete(look)
          resolve()
        }
        watchers.add(look)
        look()
      })
    },
  }
}
