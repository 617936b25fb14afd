import type { Clock } from '@cloudphone/observe/clock'

/** Where the quota cache keeps its entries: texts under keys, each for a time. */
export interface QuotaEntries {
  get(key: string): Promise<string | undefined>
  set(key: string, value: string, ttlMs: number): Promise<void>
  delete(key: string): Promise<void>
}

/** Keeps entries in this process: at most `most`, of which the one that was set longest ago makes room for a new one. */
export function quotaEntriesInMemory(clock: Pick<Clock, 'now'>, most = 20_000): QuotaEntries {
  const kept = new Map<string, { value: string; untilMs: number }>()
  return {
    get: async (key) => {
      const entry = kept.get(key)
      if (entry === undefined || entry.untilMs > clock.now().getTime()) return entry?.value
      kept.delete(key)
      return undefined
    },
    set: async (key, value, ttlMs) => {
      kept.delete(key)
      const [oldest] = kept.keys()
      if (kept.size >= most && oldest !== undefined) kept.delete(oldest)
      kept.set(key, { value, untilMs: clock.now().getTime() + ttlMs })
    },
    delete: async (key) => void kept.delete(key),
  }
}
