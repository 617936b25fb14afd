/* Terminology:
 * - window: a stretch of time that begins with a key's first request and in which a limit counts; then comes a new one
 */

/** At most `requests` in each `seconds`. */
export interface Limit {
  readonly requests: number
  readonly seconds: number
}

/** What a caller is told about the limit that is nearest to its end. */
export interface Verdict {
  readonly allowed: boolean
  readonly limit: number
  readonly remaining: number
  /** Until the window of that limit begins anew; at least 1. */
  readonly resetSeconds: number
}

/** A limit's window before the request is counted. */
export interface WindowState {
  readonly count: number
  /** Until the window ends. */
  readonly resetMs: number
}

/**
 * The verdict on one request, which is allowed when every limit allows it. A burst over the edge of a short window is
 * bounded by the longer ones, so fixed windows are good enough. `states` are those of `limits`, in their order; there is
 * at least one.
 */
export function verdictOf(limits: readonly Limit[], states: readonly WindowState[]): Verdict {
  let nearest: { limit: Limit; remaining: number; resetMs: number } | undefined
  let isFull = false
  for (const [index, limit] of limits.entries()) {
    const { count, resetMs } = states[index] as WindowState
    const own = { limit, remaining: limit.requests - count, resetMs }
    const full = own.remaining <= 0
    // Of full ones the last to open counts; else the one with least left.
    if (nearest === undefined || (full && !isFull)) nearest = own
    else if (full ? own.resetMs > nearest.resetMs : !isFull && own.remaining < nearest.remaining)
      nearest = own
    isFull ||= full
  }
  if (nearest === undefined) throw new Error('there is no limit to judge by')
  return {
    allowed: !isFull,
    limit: nearest.limit.requests,
    remaining: isFull ? 0 : nearest.remaining - 1,
    resetSeconds: Math.max(1, Math.ceil(nearest.resetMs / 1000)),
  }
}
