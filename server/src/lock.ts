import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { identify, isAlive } from '@cloudphone/db/embedded/process'
import { z } from 'zod'

const Running = z.object({ pid: z.int().positive(), url: z.string(), started: z.string() })
type Running = z.infer<typeof Running>

const nameOf = (dataDir: string) => join(dataDir, 'server.json')

/**
 * Tells `cloudphone stop` and the CLI that this process serves the data directory, and where. With the moment in which it
 * started: `stop` must not signal a stranger who got the pid of one that was killed.
 */
export async function announce(dataDir: string, url: string): Promise<void> {
  const identity = await identify(process.pid)
  if (identity === null) throw new Error(`process ${process.pid} cannot identify itself`)
  const running: Running = { ...identity, url }
  // In one step, so that nobody reads the half of it.
  const draft = `${nameOf(dataDir)}.draft`
  await writeFile(draft, `${JSON.stringify(running)}\n`, { mode: 0o600 })
  await rename(draft, nameOf(dataDir))
}

/** Takes the announcement back. */
export async function withdraw(dataDir: string): Promise<void> {
  await rm(nameOf(dataDir), { force: true })
}

/** The process that announced itself and still lives. @throws Error in one line when the announcement cannot be read. */
export async function findRunning(dataDir: string): Promise<Running | undefined> {
  try {
    const { data: running } = Running.safeParse(JSON.parse(await readFile(nameOf(dataDir), 'utf8')))
    if (running === undefined) throw new Error('it names no process')
    return (await isAlive(running)) ? running : undefined
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw new Error(`${nameOf(dataDir)} cannot be read: ${error instanceof Error ? error.message : error}`)
  }
}
