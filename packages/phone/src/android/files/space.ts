import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { PhoneFsError } from '../android.ts'

/** How much of /data is used, against the phone's storage. Counted once by walking, lazily, then kept up to date. */
export class Space {
  readonly totalBytes: number
  readonly #dir: string
  #used = 0
  #counted: Promise<void> | undefined

  constructor(dir: string, totalBytes: number) {
    this.#dir = dir
    this.totalBytes = totalBytes
  }

  async usedBytes(): Promise<number> {
    await this.count()
    return this.#used
  }

  /** Must have resolved before `take` is called. */
  count(): Promise<void> {
    this.#counted ??= this.#walk(this.#dir).then((bytes) => {
      this.#used += bytes
    })
    return this.#counted
  }

  /** Reserves bytes or throws ENOSPC. */
  take(bytes: number): void {
    if (this.#used + bytes > this.totalBytes) throw new PhoneFsError('ENOSPC', 'No space left on device')
    this.#used += bytes
  }

  give(bytes: number): void {
    this.#used = Math.max(0, this.#used - bytes)
  }

  async #walk(dir: string): Promise<number> {
    let bytes = 0
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      const path = join(dir, entry.name)
      if (entry.isDirectory()) bytes += await this.#walk(path)
      else bytes += (await lstat(path)).size
    }
    return bytes
  }
}
