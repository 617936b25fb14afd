import type { Clock } from '@cloudphone/observe/clock'

/** The safety net below a lost notification. */
const POLL_MS = 1_000

/**
 * Those who wait for installations to end. A hint (`look`) makes one query for all that are waited for, however many
 * wait; hints during a query make one more.
 */
export class EndWatch {
  readonly #clock: Clock
  readonly #endedOf: (ids: readonly string[]) => Promise<readonly string[]>
  readonly #onError: (error: unknown) => void
  readonly #waiting = new Map<string, Set<() => void>>()
  readonly #closed = new AbortController()
  #looking = false
  #again = false

  constructor(options: {
    clock: Clock
    endedOf: (ids: readonly string[]) => Promise<readonly string[]>
    onError: (error: unknown) => void
  }) {
    this.#clock = options.clock
    this.#endedOf = options.endedOf
    this.#onError = options.onError
  }

  /** How many installations are waited for. */
  get size(): number {
    return this.#waiting.size
  }

  /** Resolves when the installation has ended, after `timeoutMs`, or when the service closes. */
  async wait(id: string, timeoutMs: number): Promise<void> {
    const woken = Promise.withResolvers<void>()
    const over = new AbortController()
    const stop = AbortSignal.any([over.signal, this.#closed.signal])
    const own = this.#waiting.get(id) ?? new Set()
    this.#waiting.set(id, own.add(woken.resolve))
    this.#clock.sleep(timeoutMs, stop).then(woken.resolve, woken.resolve)
    // Now that we listen: an end that came before is found by this look, one that comes later by its own.
    this.look()
    const polling = this.#poll(stop)
    try {
      await woken.promise
    } finally {
      over.abort()
      own.delete(woken.resolve)
      if (own.size === 0) this.#waiting.delete(id)
      await polling
    }
  }

  /** Some instance may have ended some installation. */
  look(): void {
    if (this.#waiting.size === 0 || this.#closed.signal.aborted) return
    this.#again = true
    if (!this.#looking) void this.#lookOn() // catches its own errors
  }

  /** Lets all who wait go. */
  async close(): Promise<void> {
    this.#closed.abort()
  }

  async #poll(stop: AbortSignal): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(POLL_MS, stop)
        this.look()
      }
    } catch (error) {
      if (!stop.aborted) this.#onError(error)
    }
  }

  async #lookOn(): Promise<void> {
    this.#looking = true
    try {
      while (this.#again) {
        this.#again = false
        const ended = await this.#endedOf([...this.#waiting.keys()])
        for (const id of ended) for (const wake of this.#waiting.get(id) ?? []) wake()
      }
    } catch (error) {
      // The polls of those who wait go on.
      this.#onError(error)
    } finally {
      this.#looking = false
    }
  }
}
