import type { Clock } from '@cloudphone/observe/clock'
import { LRUCache } from 'lru-cache'
import type { Cache } from './cache.ts'
import { type Limit, type Verdict, verdictOf } from './window.ts'

interface Window {
  startedMs: number
  count: number
}

/**
 * Opens a cache in this process: the embedded default. Of entries and of counted keys it keeps `mostKeys` each; those
 * that were quiet longest are forgotten first.
 */
export function openMemoryCache(clock: Pick<Clock, 'monotonicMs'>, { mostKeys = 50_000 } = {}): Cache {
  // The clock is asked by ourselves: a cache that asks for itself takes the machine's.
  const entries = new LRUCache<string, { value: string; untilMs: number }>({ max: mostKeys })
  const counted = new LRUCache<string, Window[]>({ max: mostKeys })

  const windowsOf = (key: string, limits: readonly Limit[], nowMs: number): Window[] => {
    const windows = counted.get(key) ?? limits.map(() => ({ startedMs: nowMs, count: 0 }))
    for (const [index, { seconds }] of limits.entries()) {
      const window = windows[index]
      if (window === undefined || nowMs - window.startedMs >= seconds * 1000) {
        windows[index] = { startedMs: nowMs, count: 0 }
      }
    }
    counted.set(key, windows)
    return windows
  }

  return {
    get: async (key) => {
      const entry = entries.get(key)
      if (entry === undefined || clock.monotonicMs() < entry.untilMs) return entry?.value
      entries.delete(key)
      return undefined
    },
    set: async (key, value, ttlMs) => {
      entries.set(key, { value, untilMs: clock.monotonicMs() + ttlMs })
    },
    delete: async (key) => {
      entries.delete(key)
    },
    take: (key, limits): Verdict => {
      const nowMs = clock.monotonicMs()
      const windows = windowsOf(key, limits, nowMs)
      const verdict = verdictOf(
        limits,
        limits.map(({ seconds }, index) => {
          const { startedMs, count } = windows[index] as Window
          return { count, resetMs: startedMs + seconds * 1000 - nowMs }
        }),
      )
      if (verdict.allowed) for (const window of windows) window.count += 1
      return verdict
    },
    close: async () => {
      entries.clear()
      counted.clear()
    },
  }
}
