import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

const Running = z.object({ pid: z.int().positive(), url: z.string() })
export type Running = z.infer<typeof Running>

const nameOf = (dataDir: string) => join(dataDir, 'server.json')

/** Tells `cloudphone stop` and the CLI which process serves this data directory, and where. */
export async function announce(dataDir: string, running: Running): Promise<void> {
  await writeFile(nameOf(dataDir), `${JSON.stringify(running)}\n`, { mode: 0o600 })
}

/** Takes the announcement back. */
export async function withdraw(dataDir: string): Promise<void> {
  await rm(nameOf(dataDir), { force: true })
}

/** The process that announced itself and still lives; undefined when there is none. */
export async function findRunning(dataDir: string): Promise<Running | undefined> {
  try {
    const running = Running.parse(JSON.parse(await readFile(nameOf(dataDir), 'utf8')))
    process.kill(running.pid, 0)
    return running
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined
    throw error
  }
}
