/** Counts what has arrived, and tells when all of it has. */
export class Arrivals {
  #wanted = Number.POSITIVE_INFINITY
  #count = 0
  #all = Promise.withResolvers<number>()

  /** From now on `wanted` are awaited, counted from 0. */
  expect(wanted: number): void {
    this.#wanted = wanted
    this.#count = 0
    this.#all = Promise.withResolvers()
  }

  add(): void {
    this.#count += 1
    if (this.#count === this.#wanted) this.#all.resolve(performance.now())
  }

  /** When the last one came, by `performance.now()`. @throws Error after `withinMs`. */
  async all(withinMs: number): Promise<number> {
    const timeout = setTimeout(
      () => this.#all.reject(new Error(`${this.#count} of ${this.#wanted} came within ${withinMs} ms`)),
      withinMs,
    )
    try {
      return await this.#all.promise
    } finally {
      clearTimeout(timeout)
    }
  }
}
