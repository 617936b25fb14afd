import { createHash } from 'node:crypto'
import { access, chmod, chown, lstat, mkdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { type Account, canReach, unprivilegedAccount } from './account.ts'
import { type Binaries, copyBinaries, findBinaries } from './binaries.ts'

/** Where PostgreSQL's files lie and whom they belong to. */
export interface Placement {
  binaries: Binaries
  /** Null: it runs as ourselves. */
  account: Account | null
  /** Everything of this server: `data`, `password`, `postgres.log`, `supervisor.lock`. */
  home: string
  /** The folder of the socket, closed to other users. */
  socketDir: string
  /** What deserves a line at start-up, when files are not where one would look for them. */
  note?: string
}

export interface PlacementOptions {
  dataDir: string
  projectDir: string
  /** Where files go that the unprivileged account cannot reach in their place. */
  sharedDir: string
}

/** sockaddr_un.sun_path is 108 bytes on Linux, 104 on macOS, with the closing zero. */
const MAX_SOCKET_PATH_BYTES = process.platform === 'darwin' ? 103 : 107
/** What PostgreSQL calls its socket. */
export const SOCKET_FILE = '.s.PGSQL.5432'

/**
 * Decides where the server lives and makes its folders. Normally in `<dataDir>/postgres`, with the binaries
 * in node_modules. Root cannot run PostgreSQL, and the account it runs as instead often cannot enter a
 * project in root's 0700 home: then the binaries are copied to `sharedDir` once and the data lies beside
 * them, under a hash of the project's path.
 */
export async function place(options: PlacementOptions): Promise<Placement> {
  await mkdir(options.dataDir, { recursive: true })
  // PostgreSQL's processes are recognised by the folder they work in, which the kernel tells without links.
  const dataDir = await realpath(options.dataDir)
  const [installed, account] = [await findBinaries(), await unprivilegedAccount()]
  const local = join(dataDir, 'postgres')
  let placement: Omit<Placement, 'socketDir'> = { binaries: installed, account, home: local }
  if (account !== null) placement = await placeForAccount({ ...options, dataDir }, installed, account)
  await makePrivate(placement.home, account)
  return { ...placement, socketDir: await placeSocket(placement.home, account) }
}

async function placeForAccount(
  { dataDir, projectDir, sharedDir }: PlacementOptions,
  installed: Binaries,
  account: Account,
): Promise<Omit<Placement, 'socketDir'>> {
  const local = join(dataDir, 'postgres')
  const shared = join(sharedDir, `data-${await placeHash(projectDir, dataDir)}`)
  const reachable = await canReach(account, dataDir)
  if (!reachable && (await exists(join(local, 'data', 'PG_VERSION')))) {
    // Starting elsewhere would look like the loss of all data.
    throw new Error(
      `PostgreSQL data in ${local} cannot be reached by user ${account.name}, whom it runs as under root: let that user pass through the folders above it (chmod o+x), or run as the user who owns them`,
    )
  }
  // Data stays where it was made, also when the folders above are opened up later.
  const home = reachable && !(await exists(shared)) ? local : shared
  const binaries = (await canReach(account, await realpath(installed.directory)))
    ? installed
    : await copyBinaries(installed, sharedDir)
  if (binaries === installed && home === local) return { binaries, account, home }
  const note = `PostgreSQL runs as user ${account.name}, who cannot enter ${home === local ? projectDir : dataDir}: binaries in ${binaries.directory}, data in ${home}`
  return { binaries, account, home, note }
}

async function placeSocket(home: string, account: Account | null): Promise<string> {
  const inside = join(home, 'run')
  const fits = Buffer.byteLength(join(inside, SOCKET_FILE)) <= MAX_SOCKET_PATH_BYTES
  // The setting is a comma-separated list of quoted paths, and pg reads the path out of a URL.
  if (fits && /^[\w./@+-]+$/.test(inside)) {
    await makePrivate(inside, account)
    return inside
  }
  const name = `cloudphone-${createHash('sha256').update(home).digest('hex').slice(0, 12)}`
  // root's runtime folder is closed to the account.
  const runtime = account === null ? process.env.XDG_RUNTIME_DIR : undefined
  const base = runtime !== undefined && (await exists(runtime)) && runtime.length < 80 ? runtime : '/tmp'
  const outside = join(base, name)
  await makePrivate(outside, account)
  return outside
}

/** Makes a folder that only `account` (and root) may enter; refuses one that somebody else has put there. */
async function makePrivate(path: string, account: Account | null): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true })
  const made = await mkdir(path, { mode: 0o700 }).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return false
      throw error
    },
  )
  if (made && account !== null) await chown(path, account.uid, account.gid)
  const found = await lstat(path)
  const { uid, mode } = found
  const owner = account?.uid ?? process.getuid?.() ?? uid
  if (uid === owner && found.isDirectory() && (mode & 0o077) !== 0) await chmod(path, 0o700)
  if (uid !== owner || !found.isDirectory()) {
    throw new Error(
      `Folder ${path} must belong to uid ${owner} alone (mode 0700), but belongs to uid ${uid} with mode ${(mode & 0o7777).toString(8)}`,
    )
  }
}

async function placeHash(projectDir: string, dataDir: string): Promise<string> {
  const project = await realpath(projectDir)
  return createHash('sha256')
    .update(`${project}\0${await realpath(dataDir)}`)
    .digest('hex')
    .slice(0, 12)
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
