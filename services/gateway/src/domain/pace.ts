/* How slowly a body may come: who sends a byte now and then holds a connection for nothing (slow-loris). */

export interface PaceLimit {
  /** On the average of a window. */
  readonly bytesPerSecond: number
  readonly windowMs: number
}

/** The pace of one body. Only the time counts in which it was waited for: a service that reads slowly is no fault of the caller. */
export class Pace {
  readonly #limit: PaceLimit
  #bytes = 0
  #waitedMs = 0
  #sinceMs: number | undefined

  constructor(limit: PaceLimit) {
    this.#limit = limit
  }

  /** From now on more is wanted. */
  want(nowMs: number): void {
    this.#sinceMs ??= nowMs
  }

  /** From now on nothing is wanted, until `want`. */
  rest(nowMs: number): void {
    if (this.#sinceMs === undefined) return
    this.#waitedMs += nowMs - this.#sinceMs
    this.#sinceMs = undefined
  }

  came(bytes: number): void {
    this.#bytes += bytes
  }

  /** True when a whole window was waited through and too little came in it; else a window that is over begins anew. */
  isTooSlow(nowMs: number): boolean {
    if (this.#sinceMs !== undefined) {
      this.#waitedMs += nowMs - this.#sinceMs
      this.#sinceMs = nowMs
    }
    if (this.#waitedMs < this.#limit.windowMs) return false
    const wanted = (this.#limit.bytesPerSecond * this.#waitedMs) / 1000
    const isTooSlow = this.#bytes < wanted
    this.#bytes = 0
    this.#waitedMs = 0
    return isTooSlow
  }
}
