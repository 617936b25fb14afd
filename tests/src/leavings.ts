import { readdir, readFile, readlink, rm } from 'node:fs/promises'

/** A process that still has to do with a folder. */
export interface Leaving {
  readonly pid: number
  readonly command: string
}

/** The processes that work in `folder` or name it on their command line: what a platform of that folder has started. */
export async function processesOf(folder: string): Promise<Leaving[]> {
  const pids = (await readdir('/proc')).map(Number).filter((pid) => Number.isSafeInteger(pid) && pid > 0)
  const found = await Promise.all(
    pids.map(async (pid): Promise<Leaving | undefined> => {
      if (pid === process.pid) return undefined
      const workingIn = await readlink(`/proc/${pid}/cwd`).catch(() => '')
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      const isOurs = workingIn.startsWith(folder) || command.includes(folder)
      return isOurs ? { pid, command: command.replaceAll('\0', ' ').trim() } : undefined
    }),
  )
  return found.filter((one) => one !== undefined)
}

/**
 * Removes the folder of a platform that has ended.
 * @throws Error that names the processes it has left behind; they are killed, so that one failure is not the next one's.
 */
export async function removeFolder(folder: string): Promise<void> {
  const left = await processesOf(folder)
  for (const { pid } of left) endNow(pid)
  await rm(folder, { recursive: true, force: true, maxRetries: 3 })
  if (left.length > 0)
    throw new Error(`left behind: ${left.map((one) => `${one.pid} ${one.command}`).join('; ')}`)
}

/** kill -9; that it is gone already is as good. */
export function endNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
