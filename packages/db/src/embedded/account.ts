import { execFile } from 'node:child_process'
import { readFile, realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** The operating system's user that PostgreSQL runs as. */
export interface Account {
  uid: number
  gid: number
  name: string
}

/**
 * Whom PostgreSQL runs as: null for ourselves. It refuses to run as root, so root hands it to `postgres`,
 * who is created when missing (`useradd --system`), and to `nobody` where no user can be created.
 */
export async function unprivilegedAccount(): Promise<Account | null> {
  if (process.getuid?.() !== 0) return null
  const postgres = await findUser('postgres')
  if (postgres !== null) return postgres
  const created = await run('useradd', [
    '--system',
    '--no-create-home',
    '--shell',
    '/usr/sbin/nologin',
    'postgres',
  ]).then(
    () => true,
    // No useradd here (Alpine), or a read-only /etc: nobody will do.
    () => false,
  )
  const account = (created ? await findUser('postgres') : null) ?? (await findUser('nobody'))
  if (account === null) {
    throw new Error('PostgreSQL cannot run as root, and this machine has neither a user postgres nor nobody')
  }
  return account
}

/** Whether `account` may pass through every folder on the way to `path`, as far as that exists. */
export async function canReach(account: Account, path: string): Promise<boolean> {
  let folder = await nearestExisting(path)
  for (;;) {
    const { uid, gid, mode } = await stat(folder)
    const bit = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001
    if ((mode & bit) === 0) return false
    const parent = dirname(folder)
    if (parent === folder) return true
    folder = parent
  }
}

async function nearestExisting(path: string): Promise<string> {
  for (let folder = path; ; folder = dirname(folder)) {
    const real = await realpath(folder).catch(() => null)
    if (real !== null) return real
  }
}

async function findUser(name: string): Promise<Account | null> {
  const passwd = await readFile('/etc/passwd', 'utf8')
  const line = passwd.split('\n').find((entry) => entry.startsWith(`${name}:`))
  const [, , uid, gid] = line?.split(':') ?? []
  if (uid === undefined || gid === undefined) return null
  return { uid: Number(uid), gid: Number(gid), name }
}
