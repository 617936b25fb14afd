import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Writes a file so that a reader, or a start after a power cut, sees either the old or the new content: temporary file,
 * fsync, rename, fsync of the directory. Two writes of the same path must not overlap; callers serialise them.
 */
export async function writeFileAtomic(path: string, content: string): Promise<void> {
  const temporary = `${path}.tmp`
  const file = await open(temporary, 'w', 0o600)
  try {
    await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** The parsed JSON of a file, undefined when there is no such file. */
export async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw new Error(`cannot read ${path}: ${String(error)}`, { cause: error })
  }
}

/** A directory that only its owner can enter. An existing one that others can enter is refused, never silently changed. */
export async function ensurePrivateDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
  const directory = await open(path, 'r')
  try {
    const { mode } = await directory.stat()
    if ((mode & 0o077) !== 0) {
      const bits = (mode & 0o777).toString(8)
      throw new Error(`directory ${path} is open to others (mode ${bits}); it must be 700`)
    }
  } finally {
    await directory.close()
  }
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
