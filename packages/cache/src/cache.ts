import type { Limit, Verdict } from './window.ts'

/** The port behind which what may be forgotten is kept: in this process, or for all instances. */
export interface Cache {
  /** Undefined when nothing is kept under the key, or no longer. @throws CacheAwayError */
  get(key: string): Promise<string | undefined>
  /** Keeps a text for `ttlMs`. @throws CacheAwayError */
  set(key: string, value: string, ttlMs: number): Promise<void>
  /** @throws CacheAwayError */
  delete(key: string): Promise<void>
  /**
   * Counts one request of `key` if every limit allows it, all or none at once. A refused request counts nowhere: who keeps
   * asking while refused is let in as soon as the window ends. Answers at once where it need not ask anybody.
   * @throws CacheAwayError
   */
  take(key: string, limits: readonly Limit[]): Verdict | Promise<Verdict>
  close(): Promise<void>
}

/** The server of the cache is not there, or does not answer in time. */
export class CacheAwayError extends Error {
  override readonly name = 'CacheAwayError'
}
