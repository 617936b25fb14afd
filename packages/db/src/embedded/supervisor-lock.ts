import { randomUUID } from 'node:crypto'
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { identify, isAlive, type ProcessIdentity } from './process.ts'

/** Another live Cloudphone supervises this data directory. The message is one line, fit to be shown. */
export class DataDirectoryLocked extends Error {
  override readonly name = 'DataDirectoryLocked'
  readonly code = 'data_directory_locked'
  readonly retryable = false
  readonly pid: number

  constructor(dataDir: string, pid: number) {
    super(
      `Cloudphone is already running on ${dataDir} (process ${pid}): stop it, or choose another data directory`,
    )
    this.pid = pid
  }
}

export interface SupervisorLock {
  release(): Promise<void>
}

interface Holder extends ProcessIdentity {
  nonce: string
}

/**
 * Takes the lock file `path` for this process, or throws `DataDirectoryLocked`. A holder that died, however,
 * leaves a file that the next one sees through (pid and start time) and takes over; two that try at once
 * cannot both win. `flock` would be simpler, but Node does not offer it.
 */
export async function acquireSupervisorLock(path: string, dataDir: string): Promise<SupervisorLock> {
  const self = await identify(process.pid)
  if (self === null) throw new Error(`Process ${process.pid}: cannot read its own start time`)
  const mine = JSON.stringify({ ...self, nonce: randomUUID() } satisfies Holder)
  const draft = `${path}.${randomUUID()}`
  // A link appears at once with all its content: nobody reads half a holder.
  await writeFile(draft, mine, { mode: 0o600 })
  try {
    while (!(await linked(draft, path))) await evictDead(path, dataDir)
  } finally {
    await rm(draft, { force: true })
  }
  return {
    async release() {
      // Somebody else's by now, if this process was stopped long enough to be taken for dead.
      if ((await read(path)) === mine) await rm(path, { force: true })
    },
  }
}

/** The live holder of a lock file, or null. */
export async function supervisorOf(path: string): Promise<ProcessIdentity | null> {
  const holder = parse(await read(path))
  return holder !== null && (await isAlive(holder)) ? holder : null
}

/** Removes the lock of a dead holder; throws when it lives. */
async function evictDead(path: string, dataDir: string): Promise<void> {
  const seen = await read(path)
  if (seen === null) return
  const holder = parse(seen)
  if (holder !== null && (await isAlive(holder))) throw new DataDirectoryLocked(dataDir, holder.pid)
  // Two may judge the same file dead, and the slower would remove the faster one's new lock. So it is
  // moved aside first, which only one of them can do, and looked at again.
  const aside = `${path}.${randomUUID()}`
  if (!(await moved(path, aside))) return
  if ((await read(aside)) !== seen) await linked(aside, path)
  await rm(aside, { force: true })
}

function parse(text: string | null): Holder | null {
  if (text === null) return null
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return null
    if (!('pid' in value) || !('started' in value) || !('nonce' in value)) return null
    const { pid, started, nonce } = value
    if (typeof pid !== 'number' || typeof started !== 'string' || typeof nonce !== 'string') return null
    return { pid, started, nonce }
  } catch (error) {
    // Not ours, or damaged by a crash of the machine: as good as dead.
    if (error instanceof SyntaxError) return null
    throw error
  }
}

async function read(path: string): Promise<string | null> {
  return await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
}

async function linked(from: string, to: string): Promise<boolean> {
  return await link(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw error
    },
  )
}

async function moved(from: string, to: string): Promise<boolean> {
  return await rename(from, to).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false
      throw error
    },
  )
}
