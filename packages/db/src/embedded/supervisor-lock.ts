import { randomUUID } from 'node:crypto'
import { link, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
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
  /** Gives the folder free; the file stays, marked as released. */
  release(): Promise<void>
}

/*
 * The lock is a row of numbered files, `supervisor.<n>.lock`, of which the highest counts. It names its
 * holder by pid and start time, so a dead one (kill -9 leaves its file) is told from a live one. To take over
 * is to create the next number, which the file system grants to one only. A number is never used again
 * while a higher one exists, and the highest is never removed.
 *
 * Rejected: one file that is removed when its holder is dead. Two may judge the same file dead, and the slower
 * one removes the faster one's new lock; a test with eight contenders had two winners. `flock` would do, but
 * Node does not offer it.
 */
const FILE = /^supervisor\.(\d+)\.lock$/

interface Slot {
  number: number
  holder: ProcessIdentity | null
}

/** Takes `folder` for this process, or throws `DataDirectoryLocked` naming `dataDir` while another lives. */
export async function acquireSupervisorLock(folder: string, dataDir: string): Promise<SupervisorLock> {
  const self = await identify(process.pid)
  if (self === null) throw new Error(`Process ${process.pid}: cannot read its own start time`)
  for (;;) {
    const last = await highest(folder)
    if (last.holder !== null && (await isAlive(last.holder))) {
      throw new DataDirectoryLocked(dataDir, last.holder.pid)
    }
    const number = last.number + 1
    if (!(await create(folder, number, self))) continue
    // A slow contender may have got a number that was tidied away long ago: then it is not the highest.
    if ((await highest(folder)).number !== number) {
      await rm(pathOf(folder, number), { force: true })
      continue
    }
    await removeBelow(folder, number)
    return { release: () => write(pathOf(folder, number), null) }
  }
}

/** The live supervisor that holds `folder`, or null. */
export async function supervisorOf(folder: string): Promise<ProcessIdentity | null> {
  const { holder } = await highest(folder)
  return holder !== null && (await isAlive(holder)) ? holder : null
}

async function highest(folder: string): Promise<Slot> {
  for (;;) {
    const number = Math.max(0, ...(await numbers(folder)))
    if (number === 0) return { number, holder: null }
    const text = await readFile(pathOf(folder, number), 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null
      throw error
    })
    // Gone since it was listed: a higher one has come.
    if (text !== null) return { number, holder: parse(text) }
  }
}

async function numbers(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  return names.flatMap((name) => FILE.exec(name)?.[1] ?? []).map(Number)
}

/** Creates a numbered file with all its content at once; false when the number is taken. */
async function create(folder: string, number: number, holder: ProcessIdentity): Promise<boolean> {
  const draft = join(folder, `supervisor.${randomUUID()}`)
  await writeFile(draft, JSON.stringify(holder), { mode: 0o600 })
  try {
    await link(draft, pathOf(folder, number))
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  } finally {
    await rm(draft, { force: true })
  }
}

/** Replaces a file of ours at once: nobody reads half of it. */
async function write(path: string, holder: ProcessIdentity | null): Promise<void> {
  const draft = `${path}.${randomUUID()}`
  await writeFile(draft, JSON.stringify(holder), { mode: 0o600 })
  await rename(draft, path)
}

async function removeBelow(folder: string, number: number): Promise<void> {
  for (const lower of await numbers(folder)) {
    if (lower < number) await rm(pathOf(folder, lower), { force: true })
  }
}

function pathOf(folder: string, number: number): string {
  return join(folder, `supervisor.${number}.lock`)
}

/** The holder a file names; null when released, or damaged by a crash of the machine: then it is dead. */
function parse(text: string): ProcessIdentity | null {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value !== 'object' || value === null) return null
    if (!('pid' in value) || !('started' in value)) return null
    const { pid, started } = value
    return typeof pid === 'number' && typeof started === 'string' ? { pid, started } : null
  } catch (error) {
    if (error instanceof SyntaxError) return null
    throw error
  }
}
