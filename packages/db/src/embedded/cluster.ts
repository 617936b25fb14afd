import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chown, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Clock } from '@cloudphone/observe/clock'
import { type Placement, SOCKET_FILE } from './placement.ts'
import { commandLine, identify, isAlive, type ProcessIdentity, signal, workingDirectory } from './process.ts'

const run = promisify(execFile)

/** `full` survives a power cut; `none` survives kill -9 of the server only, for tests. */
export type Durability = 'full' | 'none'

export const SUPERUSER = 'postgres'

const START_TIMEOUT_MS = 30_000
const FAST_STOP_TIMEOUT_MS = 10_000
const IMMEDIATE_STOP_TIMEOUT_MS = 5_000
const POLL_MS = 10
const MAX_LOG_BYTES = 10 * 1024 * 1024

/** Makes the cluster in `<home>/data` unless it is there; answers the superuser's password. */
export async function ensureCluster(
  { binaries, account, home }: Placement,
  durability: Durability,
): Promise<string> {
  const data = join(home, 'data')
  const passwordFile = join(home, 'password')
  if (await isFile(join(data, 'PG_VERSION'))) {
    return (
      await readFile(passwordFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
        throw new Error(`PostgreSQL's password file ${passwordFile} cannot be read (${error.code})`, {
          cause: error,
        })
      })
    ).trim()
  }
  const password = randomBytes(24).toString('base64url')
  await rm(passwordFile, { force: true })
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600, flag: 'wx' })
  if (account !== null) await chown(passwordFile, account.uid, account.gid)
  // Made aside and renamed: a crash halfway leaves no cluster rather than half of one.
  const draft = `${data}.new`
  await rm(draft, { recursive: true, force: true })
  await run(
    join(binaries.directory, 'bin', 'initdb'),
    [
      ...[
        '-D',
        draft,
        '-U',
        SUPERUSER,
        '--auth=scram-sha-256',
        `--pwfile=${passwordFile}`,
        '--encoding=UTF8',
      ],
      // The same order and case rules on every machine, without the operating system's locales.
      ...['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--no-instructions'],
      ...(durability === 'none' ? ['--no-sync'] : []),
    ],
    { cwd: home, env: environment(), ...identityOf(account) },
  ).catch((error: Error & { stderr?: string }) => {
    throw new Error(`PostgreSQL's initdb failed in ${home}: ${error.stderr?.trim() || error.message}`, {
      cause: error,
    })
  })
  await rename(draft, data)
  return password
}

/** What `postmaster.pid` says about the data directory. */
export type Occupant =
  | { state: 'none' }
  /** A live postmaster on this very data directory. */
  | { state: 'running'; postmaster: ProcessIdentity; socketDir: string }
  /** The file's pid is dead, or by now belongs to something else. */
  | { state: 'stale'; foreignPid: number | null }

/** Reads who occupies `<home>/data`, telling a live postmaster from a pid that has come round again. */
export async function occupantOf(home: string): Promise<Occupant> {
  const data = join(home, 'data')
  const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw error
  })
  if (text === null) return { state: 'none' }
  // Lines: pid, data directory, start time, port, socket directory, ... (PostgreSQL source, pidfile.h).
  const [pidLine, , , , socketDir] = text.split('\n')
  const pid = Math.abs(Number.parseInt(pidLine ?? '', 10))
  const found = await identify(pid)
  if (found === null) return { state: 'stale', foreignPid: null }
  if (!(await isPostmasterOf(pid, data))) return { state: 'stale', foreignPid: pid }
  return { state: 'running', postmaster: found, socketDir: socketDir?.trim() ?? '' }
}

/**
 * Removes the pid file of a dead or foreign process. PostgreSQL would see through a dead pid by itself, but
 * takes a foreign process of the same number for a running server and refuses to start.
 * Backends that outlive their postmaster for a moment are waited for: beside them a second server would
 * destroy the data, and without the pid file PostgreSQL would not notice them.
 */
export async function removeStalePidFile(
  home: string,
  backends: () => Promise<number[]>,
  clock: Clock,
): Promise<void> {
  const deadline = clock.monotonicMs() + IMMEDIATE_STOP_TIMEOUT_MS
  for (let left = await backends(); left.length > 0; left = await backends()) {
    if (clock.monotonicMs() > deadline) {
      throw new Error(
        `PostgreSQL processes ${left.join(', ')} still work in ${home} without their postmaster: end them first`,
      )
    }
    await clock.sleep(POLL_MS)
  }
  await rm(join(home, 'data', 'postmaster.pid'), { force: true })
}

/**
 * Removes the socket of a server that is gone, and its lock file, which names a pid too: PostgreSQL would be
 * misled by a pid that has come round again, and by a zombie (in a container without an init they stay).
 */
export async function removeStaleSocket(socketDir: string): Promise<void> {
  for (const name of [SOCKET_FILE, `${SOCKET_FILE}.lock`]) await rm(join(socketDir, name), { force: true })
}

/** Spawns `postgres` apart from this process (own session, own log file) and waits until it takes connections. */
export async function startServer(
  { binaries, account, home, socketDir }: Placement,
  durability: Durability,
  clock: Clock,
): Promise<ProcessIdentity> {
  const data = join(home, 'data')
  const logPath = join(home, 'postgres.log')
  await rotate(logPath)
  const log = await open(logPath, 'a', 0o600)
  const child = spawn(
    join(binaries.directory, 'bin', 'postgres'),
    ['-D', data, ...settings(socketDir, durability)],
    {
      cwd: home,
      env: environment(),
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      ...identityOf(account),
    },
  )
  const failed = once(child, 'error').then(([error]) => error)
  // It is rejected never, and resolved only when the spawn itself fails.
  void failed
  child.unref()
  await log.close()
  const deadline = clock.monotonicMs() + START_TIMEOUT_MS
  while (!(await isReady(data, child.pid))) {
    if (child.pid === undefined) throw new Error(`PostgreSQL cannot be started: ${await failed}`)
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`PostgreSQL ended while starting; the end of ${logPath} says:\n${await tail(logPath)}`)
    }
    if (clock.monotonicMs() > deadline) {
      signal(child.pid, 'SIGQUIT')
      throw new Error(`PostgreSQL was not ready after ${START_TIMEOUT_MS} ms; see ${logPath}`)
    }
    await clock.sleep(POLL_MS)
  }
  const identity = child.pid === undefined ? null : await identify(child.pid)
  if (identity === null) throw new Error(`PostgreSQL ended right after its start; see ${logPath}`)
  return identity
}

/** Waits until a server found running takes connections (it may be recovering); false when it ends instead. */
export async function becomesReady(
  home: string,
  postmaster: ProcessIdentity,
  clock: Clock,
): Promise<boolean> {
  const deadline = clock.monotonicMs() + START_TIMEOUT_MS
  while (!(await isReady(join(home, 'data'), postmaster.pid))) {
    if (!(await isAlive(postmaster))) return false
    if (clock.monotonicMs() > deadline) {
      throw new Error(
        `PostgreSQL (process ${postmaster.pid}) in ${home} is not ready after ${START_TIMEOUT_MS} ms; see ${home}/postgres.log`,
      )
    }
    await clock.sleep(POLL_MS)
  }
  return true
}

/** Ends the server: fast (connections are cut, a checkpoint is written), and if that takes 10 s, at once. */
export async function stopServer(postmaster: ProcessIdentity, clock: Clock): Promise<void> {
  const steps: [NodeJS.Signals, number][] = [
    ['SIGINT', FAST_STOP_TIMEOUT_MS],
    ['SIGQUIT', IMMEDIATE_STOP_TIMEOUT_MS],
    ['SIGKILL', IMMEDIATE_STOP_TIMEOUT_MS],
  ]
  for (const [name, timeoutMs] of steps) {
    if (!(await isAlive(postmaster)) || !signal(postmaster.pid, name)) return
    const deadline = clock.monotonicMs() + timeoutMs
    while (clock.monotonicMs() < deadline) {
      if (!(await isAlive(postmaster))) return
      await clock.sleep(POLL_MS)
    }
  }
  throw new Error(`PostgreSQL (process ${postmaster.pid}) does not end, not even by SIGKILL`)
}

function settings(socketDir: string, durability: Durability): string[] {
  const values: Record<string, string | number> = {
    listen_addresses: '',
    unix_socket_directories: `"${socketDir}"`,
    unix_socket_permissions: '0700',
    port: 5432,
    max_connections: 400,
    shared_buffers: '128MB',
    max_wal_size: '512MB',
    // Short statements only: compiling them costs more than it saves.
    jit: 'off',
    cluster_name: 'cloudphone',
    timezone: 'UTC',
    log_timezone: 'UTC',
    // synchronous_commit stays on: what was committed survives kill -9 of the server, in tests as well.
    ...(durability === 'none' ? { fsync: 'off', full_page_writes: 'off' } : {}),
  }
  return Object.entries(values).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

/** `postmaster.pid` names the pid on its first line and says `ready` on its eighth, as pg_ctl reads it. */
async function isReady(data: string, pid: number | undefined): Promise<boolean> {
  const lines = await readFile(join(data, 'postmaster.pid'), 'utf8').then(
    (text) => text.split('\n'),
    () => [],
  )
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready'
}

async function isPostmasterOf(pid: number, data: string): Promise<boolean> {
  // Every PostgreSQL process works in its data directory. The command line is for systems without /proc.
  const folder = await workingDirectory(pid)
  if (folder !== null) return folder === data && (await commandLine(pid)).includes('postgres')
  return (await commandLine(pid)).includes(`postgres -D ${data}`)
}

/** Nothing of our own environment: PGDATA, PGPORT or a foreign locale would change what starts. */
function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }
}

function identityOf(account: Placement['account']): { uid?: number; gid?: number } {
  return account === null ? {} : { uid: account.uid, gid: account.gid }
}

async function rotate(logPath: string): Promise<void> {
  const size = await stat(logPath).then(
    (found) => found.size,
    () => 0,
  )
  if (size > MAX_LOG_BYTES) await rename(logPath, `${logPath}.1`)
}

async function tail(path: string): Promise<string> {
  return (await readFile(path, 'utf8')).trimEnd().split('\n').slice(-8).join('\n')
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isFile(),
    () => false,
  )
}
