import { chmod, mkdtemp, readdir, rm, statfs } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { endOrphan, startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { supervisorOf } from '@cloudphone/db/embedded/supervisor-lock'
import { silentLog } from '@cloudphone/observe/log'
import { DOOR_VARIABLE } from './postgres-door.ts'

const PREFIX = 'cloudphone-test-'
// Making a database writes some 300 files: 18 ms in memory, over 200 ms on the disk of a busy machine.
const MEMORY = '/dev/shm'
const MEMORY_NEEDED_BYTES = 2 * 1024 ** 3

/**
 * vitest's global set-up: one PostgreSQL for the whole run, in a temporary folder. It starts when the first
 * test asks for a database, so that a run without one does not pay for it (about a second). Workers ask at
 * a unix socket, whose path they inherit in an environment variable.
 */
export async function setup(): Promise<() => Promise<void>> {
  await removeAbandoned()
  const folder = await mkdtemp(join(await fastestFolder(), PREFIX))
  // The account that PostgreSQL runs as under root has to pass.
  await chmod(folder, 0o711)
  let starting: ReturnType<typeof startEmbeddedPostgres> | undefined
  const start = () =>
    startEmbeddedPostgres({ dataDir: folder, projectDir: folder, durability: 'none', log: silentLog() })
  const door = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    starting ??= start()
    starting.then(
      ({ adminUrl }) => socket.end(JSON.stringify({ adminUrl })),
      (error: Error) => socket.end(JSON.stringify({ error: error.message })),
    )
    socket.resume()
  })
  const path = join(folder, 'door')
  await listen(door, path)
  process.env[DOOR_VARIABLE] = path
  return async () => {
    door.close()
    const server = await starting?.catch(() => undefined)
    await server?.stop()
    // Elsewhere than in the folder, when root's temporary folder is closed to PostgreSQL's account.
    if (server !== undefined) await rm(server.dataDir, { recursive: true, force: true })
    await rm(folder, { recursive: true, force: true })
  }
}

/** Ends and removes what crashed runs have left: folders of ours that no live supervisor holds. */
async function removeAbandoned(): Promise<void> {
  for (const base of [MEMORY, tmpdir()]) {
    const names = await readdir(base).catch(() => [])
    for (const name of names.filter((one) => one.startsWith(PREFIX)))
      await removeIfAbandoned(join(base, name))
  }
}

async function removeIfAbandoned(folder: string): Promise<void> {
  const home = join(folder, 'postgres')
  // Never taken: it never started, or is about to. A run in its first second is left alone.
  const { everTaken, holder } = await supervisorOf(home)
  if (!everTaken || holder !== null) return
  await endOrphan(home)
  await rm(folder, { recursive: true, force: true })
}

/** Memory, where there is enough of it; containers often have 64 MiB there. */
async function fastestFolder(): Promise<string> {
  const roomy = await statfs(MEMORY).then(
    ({ bavail, bsize }) => bavail * bsize >= MEMORY_NEEDED_BYTES,
    () => false,
  )
  return roomy ? MEMORY : tmpdir()
}

function listen(door: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    door.once('error', reject)
    door.listen(path, resolve)
    door.unref()
  })
}
