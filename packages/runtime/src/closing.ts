import type { Logger } from '@cloudphone/observe/log'

/** Something that runs until it is closed. */
export interface Closable {
  close(): Promise<void>
}

/** Things that were opened in order and are closed in reverse, each even when another fails. */
export class ClosingStack implements Closable {
  readonly #entries: { name: string; close: () => Promise<void> }[] = []
  readonly #log: Logger
  #closing: Promise<void> | undefined

  constructor(log: Logger) {
    this.#log = log
  }

  /** Remembers something to close; returns it. */
  add<T extends Closable>(name: string, thing: T): T {
    this.#entries.push({ name, close: () => thing.close() })
    return thing
  }

  /** Remembers an action for the closing. */
  defer(name: string, close: () => Promise<void>): void {
    this.#entries.push({ name, close })
  }

  /** Closes all in reverse order; a second call waits for the first. Errors are logged, the last one is thrown. */
  close(): Promise<void> {
    this.#closing ??= this.#run()
    return this.#closing
  }

  async #run(): Promise<void> {
    let failure: unknown
    for (const entry of this.#entries.toReversed()) {
      try {
        await entry.close()
      } catch (error) {
        failure = error
        this.#log.error({ event: 'close.failed', part: entry.name, err: error })
      }
    }
    if (failure !== undefined) throw failure
  }
}
