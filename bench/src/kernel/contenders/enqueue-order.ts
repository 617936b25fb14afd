/** Arrivals at a fixed rate. */
export interface EnqueueOrder {
  readonly count: number
  readonly perSecond: number
}

/** Each from the moment at which the request was due, so that a stall is charged to all that waited in it. */
export interface EnqueueOutcome {
  readonly count: number
  readonly latenciesMs: readonly number[]
}

/** Takes what is started under a number, and when it began to run. */
export class FirstSteps {
  readonly #begun = new Map<number, PromiseWithResolvers<void>>()
  #runs = 0

  clear(): void {
    this.#begun.clear()
    this.#runs = 0
  }

  /** Resolves when number `n` has begun. */
  await(n: number): Promise<void> {
    const waiting = Promise.withResolvers<void>()
    this.#begun.set(n, waiting)
    return waiting.promise
  }

  begin(n: number): void {
    this.#runs += 1
    this.#begun.get(n)?.resolve()
  }

  /** How many have begun, twice if one did so twice. */
  get runs(): number {
    return this.#runs
  }
}
