import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

/**
 * Keeps a second host out of a directory. The lock is SQLite's exclusive file lock on an empty database: the kernel
 * gives it up when the process dies, however it dies, so that there is never a stale lock to judge. (A file with a pid
 * in it would need such a judgement, and two starters can both judge it stale; Node has no flock of its own.)
 */
export class HostLock {
  readonly #database: DatabaseSync

  private constructor(database: DatabaseSync) {
    this.#database = database
  }

  /** Throws an Error in one line when a live host holds the directory. */
  static take(dir: string): HostLock {
    const database = new DatabaseSync(join(dir, 'host.lock'))
    try {
      database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    } catch (error) {
      database.close()
      const busy = error instanceof Error && error.message.includes('locked')
      throw busy ? new Error(`another phone host is running on ${dir}`, { cause: error }) : error
    }
    return new HostLock(database)
  }

  release(): void {
    this.#database.close()
  }
}
