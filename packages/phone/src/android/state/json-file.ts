import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/** The parsed content of a JSON file, or undefined when it is not there. Throws on anything that is not JSON. */
export async function readJson(path: string): Promise<unknown> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Error(`${path} is not JSON`, { cause: error })
  }
}

/**
 * A JSON document on disk that is replaced as a whole: a crash leaves the old or the new one. Saves are serialised,
 * and those asked for while one is under way are joined into one more, so a burst of changes costs two writes.
 */
export class JsonFile {
  readonly #path: string
  readonly #content: () => unknown
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(path: string, content: () => unknown) {
    this.#path = path
    this.#content = content
  }

  /** Resolves once the content as of this call, or a later one, is on disk. */
  save(): Promise<void> {
    if (this.#running === undefined) {
      this.#running = this.#write().finally(() => {
        this.#running = undefined
      })
      return this.#running
    }
    // The failure of the write under way belongs to who asked for it; the next one is tried all the same.
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined
        return this.save()
      })
    return this.#next
  }

  /** Resolves when no save is under way. */
  async settled(): Promise<void> {
    await this.#next
    await this.#running
  }

  async #write(): Promise<void> {
    const temporary = `${this.#path}.new`
    await mkdir(dirname(this.#path), { recursive: true })
    const file = await open(temporary, 'w', 0o600)
    try {
      await file.writeFile(JSON.stringify(this.#content()))
      await file.datasync()
    } finally {
      await file.close()
    }
    await rename(temporary, this.#path)
  }
}
