import { closeSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { hasCode } from './atomic-file.ts'
import { PhoneEvent } from './host-api.ts'
import { HostError } from './host-error.ts'

const KEPT_EVENTS = 10_000

/**
 * The host's events, numbered without gaps. The last 10,000 are kept in memory and in an append-only file.
 *
 * Appending is one synchronous write of some 300 bytes into the page cache (about 10 us): the order of the file is the
 * order of the numbers, and an event that a reader has seen survives kill -9 of the host. A power cut may take the last
 * ones; the host then finds out from the phones' own files what was not told (see `PhoneHost`).
 */
export class EventLog {
  readonly #path: string
  readonly #kept: number
  #file: number
  #events: PhoneEvent[]
  #lastSeq: number
  #fileLines: number
  #wakers = new Set<() => void>()
  #closed = false

  private constructor(path: string, kept: number, events: PhoneEvent[]) {
    this.#path = path
    this.#kept = kept
    this.#events = events.slice(-kept)
    this.#lastSeq = events.at(-1)?.seq ?? 0
    this.#fileLines = 0
    this.#file = this.#rewrite()
  }

  /** Reads the file, leaving out a last line that was cut off while it was written. */
  static open(path: string, options: { kept?: number } = {}): EventLog {
    let text = ''
    try {
      text = readFileSync(path, 'utf8')
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error
    }
    const lines = text.split('\n')
    // Whatever follows the last line end was never finished.
    lines.pop()
    const events = lines.flatMap((line) => {
      const event = PhoneEvent.safeParse(parseLine(line))
      return event.success ? [event.data] : []
    })
    return new EventLog(path, options.kept ?? KEPT_EVENTS, events)
  }

  /** The number of the newest event, 0 before the first. */
  get lastSeq(): number {
    return this.#lastSeq
  }

  /** The events that are kept, oldest first. */
  get events(): readonly PhoneEvent[] {
    return this.#events
  }

  append(event: Omit<PhoneEvent, 'seq'>): PhoneEvent {
    this.#lastSeq += 1
    const numbered = { seq: this.#lastSeq, ...event }
    writeSync(this.#file, `${JSON.stringify(numbered)}\n`)
    this.#fileLines += 1
    this.#events.push(numbered)
    // Trimmed in big steps, so that an append costs the same whatever was before.
    if (this.#events.length > 2 * this.#kept) this.#events = this.#events.slice(-this.#kept)
    if (this.#fileLines > 2 * this.#kept) {
      closeSync(this.#file)
      this.#file = this.#rewrite()
    }
    for (const wake of this.#wakers) wake()
    this.#wakers.clear()
    return numbered
  }

  /** Throws a `HostError` with status 410 when events after `since` are no longer, or not yet, known. */
  check(since: number): void {
    const oldest = this.#lastSeq - this.#events.length
    if (since >= oldest && since <= this.#lastSeq) return
    throw new HostError({
      code: 'events_gone',
      status: 410,
      message: `events after ${since} are not kept (${oldest} to ${this.#lastSeq} are); list the phones again`,
      retryable: false,
    })
  }

  /** Events after `since`, now and as they come, until the signal fires, the log closes, or the reader is too slow. */
  async *follow(since: number, signal: AbortSignal): AsyncGenerator<readonly PhoneEvent[], void, undefined> {
    let last = since
    while (!signal.aborted) {
      const batch = this.after(last)
      if (batch === undefined) return
      if (batch.length === 0) {
        // Only now: what was appended right before the end is still told.
        if (this.#closed) return
        await this.#more(signal)
        continue
      }
      last = batch.at(-1)?.seq ?? last
      yield batch
    }
  }

  /** Events after `since` that are there now, at most 1,000; undefined when they are no longer kept. */
  after(since: number): readonly PhoneEvent[] | undefined {
    const first = this.#events.length - (this.#lastSeq - since)
    return first < 0 ? undefined : this.#events.slice(first, first + 1000)
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.#file)
    for (const wake of this.#wakers) wake()
    this.#wakers.clear()
  }

  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        signal.removeEventListener('abort', wake)
        this.#wakers.delete(wake)
        resolve()
      }
      this.#wakers.add(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
  }

  /** Replaces the file by the events that are kept, and gives it open for appending. */
  #rewrite(): number {
    this.#events = this.#events.slice(-this.#kept)
    const temporary = `${this.#path}.tmp`
    writeFileSync(temporary, this.#events.map((event) => `${JSON.stringify(event)}\n`).join(''), {
      mode: 0o600,
      flush: true,
    })
    renameSync(temporary, this.#path)
    this.#fileLines = this.#events.length
    return openSync(this.#path, 'a', 0o600)
  }
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}
