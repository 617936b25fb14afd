import { execFile } from 'node:child_process'
import { readFile, readlink } from 'node:fs/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * A process told apart from a later one with the same pid: by the boot and the moment in which it started.
 * Pids come round again, in containers after every restart.
 */
export interface ProcessIdentity {
  pid: number
  /** Opaque; equal only for the same process. */
  started: string
}

/** Identifies the process `pid`; null when there is none (a zombie counts as none). */
export async function identify(pid: number): Promise<ProcessIdentity | null> {
  if (!Number.isSafeInteger(pid) || pid <= 0) return null
  if (process.platform !== 'linux') return await identifyByPs(pid)
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
    // proc(5): the name, in parentheses, may hold anything; state is field 3, start time field 22.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return null
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()
    return { pid, started: `${boot}/${fields[19]}` }
  } catch (error) {
    if (isGone(error)) return null
    throw error
  }
}

/** True while this very process lives. */
export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  return (await identify(identity.pid))?.started === identity.started
}

/** The folder a process works in; null when it is gone or may not be asked. Linux only. */
export async function workingDirectory(pid: number): Promise<string | null> {
  return await readlink(`/proc/${pid}/cwd`).catch(() => null)
}

/** The command line of a process, words joined by spaces; empty when it is gone. */
export async function commandLine(pid: number): Promise<string> {
  if (process.platform === 'linux') {
    const raw = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return raw.replaceAll('\0', ' ').trim()
  }
  return await run('ps', ['-o', 'command=', '-p', String(pid)]).then(
    ({ stdout }) => stdout.trim(),
    () => '',
  )
}

/** Sends a signal; false when the process is gone. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    process.kill(pid, name)
    return true
  } catch (error) {
    if (isGone(error)) return false
    throw error
  }
}

async function identifyByPs(pid: number): Promise<ProcessIdentity | null> {
  const line = await run('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { env: { LC_ALL: 'C' } }).then(
    ({ stdout }) => stdout.trim(),
    // ps ends with 1 when there is no such process.
    () => '',
  )
  const match = /^(\S+)\s+(.+)$/.exec(line)
  if (match?.[2] === undefined || match[1]?.startsWith('Z')) return null
  return { pid, started: match[2] }
}

function isGone(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ENOENT' || code === 'ESRCH'
}
