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
  /** Until the window of that limit begins anew. */
  readonly resetSeconds: number
}

interface Window {
  startedMs: number
  count: number
}

/**
 * Counts requests per key in fixed windows that begin with a key's first request. A burst over the edge of a short window
 * is bounded by the longer ones, so the simplest counter is good enough. A refused request counts nowhere: who keeps
 * asking while refused is let in as soon as the window ends. The keys that were quiet longest are forgotten first.
 */
export class RateLimiter {
  readonly #limits: readonly Limit[]
  readonly #maxKeys: number
  readonly #windows = new Map<string, Window[]>()

  /** Limits of 0 requests are off. */
  constructor(limits: readonly Limit[], { maxKeys = 20_000 }: { maxKeys?: number } = {}) {
    this.#limits = limits.filter(({ requests }) => requests > 0)
    this.#maxKeys = maxKeys
  }

  /** Such as `10;w=1, 100;w=10`: the limits in force; empty without any. */
  get policy(): string {
    return this.#limits.map(({ requests, seconds }) => `${requests};w=${seconds}`).join(', ')
  }

  /** Counts one request of `key` at `nowMs` (monotonic) if every limit allows it. Undefined when no limit is on. */
  take(key: string, nowMs: number): Verdict | undefined {
    if (this.#limits.length === 0) return undefined
    const windows = this.#windowsOf(key, nowMs)
    const states = this.#limits.map((limit, index) => {
      const window = windows[index] as Window
      const resetMs = window.startedMs + limit.seconds * 1000 - nowMs
      return { limit, window, remaining: limit.requests - window.count, resetMs }
    })
    const full = states.filter(({ remaining }) => remaining <= 0)
    const allowed = full.length === 0
    if (allowed) for (const { window } of states) window.count += 1
    // Of full ones the last to open counts; else the one with least left.
    const nearest = allowed
      ? states.reduce((one, other) => (other.remaining < one.remaining ? other : one))
      : full.reduce((one, other) => (other.resetMs > one.resetMs ? other : one))
    return {
      allowed,
      limit: nearest.limit.requests,
      remaining: allowed ? nearest.remaining - 1 : 0,
      resetSeconds: Math.max(1, Math.ceil(nearest.resetMs / 1000)),
    }
  }

  #windowsOf(key: string, nowMs: number): Window[] {
    const windows = this.#windows.get(key) ?? this.#limits.map(() => ({ startedMs: nowMs, count: 0 }))
    for (const [index, window] of windows.entries()) {
      const seconds = this.#limits[index]?.seconds ?? 0
      if (nowMs - window.startedMs < seconds * 1000) continue
      window.startedMs = nowMs
      window.count = 0
    }
    // A map keeps the order of insertion: the key that was touched last goes to the end.
    this.#windows.delete(key)
    this.#windows.set(key, windows)
    if (this.#windows.size > this.#maxKeys) {
      const quietest = this.#windows.keys().next()
      if (!quietest.done) this.#windows.delete(quietest.value)
    }
    return windows
  }
}

/**
 * The key of somebody known only by address. Of an IPv6 address the first 64 bits: its owner has all the others too
 * (RFC 6177), and would else be a new caller with every request.
 */
export function limitKeyOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return `address:${mapped}`
  if (!address.includes(':')) return `address:${address}`
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? []
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => '0')
  return `address:${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`
}
