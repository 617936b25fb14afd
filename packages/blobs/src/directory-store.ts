import { createHash, randomUUID } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { BlobStore } from './blob-store.ts'

const oldDraftMs = 24 * 3_600_000
const keyPattern = /^[\w-][\w.-]*(\/[\w-][\w.-]*)*$/

/** Keeps blobs as files below a directory; drafts lie in `.drafts` on the same disk, so that a rename puts them in place. */
export async function openDirectoryStore(directory: string): Promise<BlobStore> {
  const drafts = join(directory, '.drafts')
  await mkdir(drafts, { recursive: true, mode: 0o700 })
  await clearOldDrafts(drafts)
  const pathOf = (key: string): string => {
    if (!keyPattern.test(key) || key.length > 512) throw new Error(`blob key '${key}' is not allowed`)
    return join(directory, key)
  }
  return {
    draft: async (source) => {
      const path = join(drafts, randomUUID())
      const measured = await writeMeasured(source, path)
      return {
        ...measured,
        path,
        commit: async (key) => {
          const target = pathOf(key)
          await mkdir(dirname(target), { recursive: true, mode: 0o700 })
          await rename(path, target)
          await syncDirectory(dirname(target))
        },
        [Symbol.asyncDispose]: () => rm(path, { force: true }),
      }
    },
    open: async (key, range) => {
      const path = pathOf(key)
      const found = await stat(path).catch(ignoreMissing)
      if (found === undefined || !found.isFile()) return undefined
      return {
        body: createReadStream(path, range),
        sizeBytes: range ? range.end - range.start + 1 : found.size,
      }
    },
    delete: (key) => rm(pathOf(key), { force: true }),
    list: (prefix) => listFiles(directory, prefix),
    close: async () => undefined,
  }
}

/** What a process that died left half-written is of no use; a young draft may be another process's upload. */
async function clearOldDrafts(drafts: string): Promise<void> {
  const { mtimeMs: nowMs } = await stat(drafts)
  for (const name of await readdir(drafts)) {
    const found = await stat(join(drafts, name)).catch(ignoreMissing)
    if (found !== undefined && nowMs - found.mtimeMs > oldDraftMs)
      await rm(join(drafts, name), { force: true })
  }
}

/** Writes, hashes and counts in one pass and makes it durable; leaves nothing behind when the source fails. */
async function writeMeasured(
  source: NodeJS.ReadableStream,
  path: string,
): Promise<{ sizeBytes: number; sha256: string }> {
  const hash = createHash('sha256')
  let sizeBytes = 0
  const meter = new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      hash.update(chunk)
      sizeBytes += chunk.length
      done(null, chunk)
    },
  })
  try {
    await pipeline(source, meter, createWriteStream(path, { mode: 0o600, flush: true }))
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
  return { sizeBytes, sha256: hash.digest('hex') }
}

/** A rename is durable only when the directory is. */
async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function* listFiles(directory: string, prefix: string): AsyncIterable<string> {
  const names = await readdir(directory, { recursive: true, withFileTypes: true })
  const keys = names
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .filter((key) => !key.startsWith('.drafts/') && key.startsWith(prefix))
  yield* keys.sort()
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR'))
    return undefined
  throw error
}
