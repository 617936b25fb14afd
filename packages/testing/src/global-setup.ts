import { readdir, rm } from 'node:fs/promises'
import { createConnection, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { endOrphan, startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { silentLog } from '@cloudphone/observe/log'
import { DOOR_VARIABLE } from './postgres-door.ts'
import { temporaryBases, temporaryFolder } from './temporary-folder.ts'

const PREFIX = 'cloudphone-test-'
const DOOR = 'door'
/**
 * vitest's global set-up: one PostgreSQL for the whole run, in a temporary folder. It starts when the first
 * test asks for a database, so that a run without one does not pay for it (about a second). Workers ask at
 * a unix socket, whose path they inherit in an environment variable.
 */
export async function setup(): Promise<() => Promise<void>> {
  await removeAbandoned()
  const folder = await temporaryFolder(PREFIX)
  let starting: ReturnType<typeof startEmbeddedPostgres> | undefined
  const start = () =>
    startEmbeddedPostgres({ dataDir: folder, projectDir: folder, durability: 'none', log: silentLog() })
  const door = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    // Only who asks starts it; who just knocks wants to know whether this run is alive.
    socket.once('data', () => {
      starting ??= start()
      starting.then(
        ({ adminUrl }) => socket.end(JSON.stringify({ adminUrl })),
        (error: Error) => socket.end(JSON.stringify({ error: error.message })),
      )
    })
  })
  const path = join(folder, DOOR)
  await listen(door, path)
  process.env[DOOR_VARIABLE] = path
  return async () => {
    const server = await starting?.catch(() => undefined)
    await server?.stop()
    // Elsewhere than in the folder, when root's temporary folder is closed to PostgreSQL's account.
    if (server !== undefined) await rm(server.dataDir, { recursive: true, force: true })
    // Last: without a door, the next run would not know an abandoned folder from one about to be used.
    door.close()
    await rm(folder, { recursive: true, force: true })
  }
}

/** Ends and removes what crashed runs have left: folders of ours behind whose door nobody is. */
async function removeAbandoned(): Promise<void> {
  for (const base of temporaryBases) {
    const names = await readdir(base).catch(() => [])
    for (const name of names.filter((one) => one.startsWith(PREFIX)))
      await removeIfAbandoned(join(base, name))
  }
}

async function removeIfAbandoned(folder: string): Promise<void> {
  // Nobody behind the door: its process is dead. No door at all: it is about to be made.
  if (!(await isDeserted(join(folder, DOOR)))) return
  await endOrphan(join(folder, 'postgres'))
  await rm(folder, { recursive: true, force: true })
}

function isDeserted(door: string): Promise<boolean> {
  return new Promise((resolve) => {
    const knock = createConnection(door)
    knock.once('connect', () => {
      knock.destroy()
      resolve(false)
    })
    knock.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'))
  })
}

function listen(door: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    door.once('error', reject)
    door.listen(path, resolve)
    door.unref()
  })
}
