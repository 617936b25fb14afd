export type LogPriority = 'V' | 'D' | 'I' | 'W' | 'E' | 'F'

export interface LogEntry {
  readonly at: Date
  readonly pid: number
  readonly tid: number
  readonly priority: LogPriority
  readonly tag: string
  readonly message: string
}

/** Entries kept; about 100 bytes each, so that a talkative phone stays below 100 KB. */
const CAPACITY = 800
const MAX_MESSAGE = 4000

/** The phone's log: the last entries, and those who follow it. */
export class LogBuffer {
  readonly #now: () => Date
  #entries: LogEntry[] = []
  readonly #followers = new Set<(entry: LogEntry) => void>()

  constructor(now: () => Date) {
    this.#now = now
  }

  write(entry: { priority: LogPriority; tag: string; message: string; pid: number }): void {
    const full: LogEntry = {
      ...entry,
      message: entry.message.slice(0, MAX_MESSAGE),
      tid: entry.pid,
      at: this.#now(),
    }
    this.#entries.push(full)
    // Trimmed in bulk, so that the cost per entry stays constant.
    if (this.#entries.length > CAPACITY * 2) this.#entries = this.#entries.slice(-CAPACITY)
    for (const follower of this.#followers) follower(full)
  }

  entries(): readonly LogEntry[] {
    return this.#entries.slice(-CAPACITY)
  }

  clear(): void {
    this.#entries = []
  }

  /** Calls back for each entry from now on; the answer ends it. */
  follow(follower: (entry: LogEntry) => void): () => void {
    this.#followers.add(follower)
    return () => this.#followers.delete(follower)
  }
}
