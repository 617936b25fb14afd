import { cp, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { editsOf, type Guard, withEdit } from './guard.ts'

/** A copy of the project whose guards may be taken away. */
export interface Copy extends AsyncDisposable {
  readonly root: string
  /** Takes a guard away until the answer is disposed of. @throws Error when it cannot be told where it is. */
  without(guard: Guard): Promise<AsyncDisposable>
}

const SCOPE = '@cloudphone'

/**
 * Copies the project, as it lies there, into a temporary folder: whoever works in it is not disturbed. What is installed
 * is linked, the workspaces into the copy, or a mutant's tests would run the project's own code.
 */
export async function copyProject(project: string): Promise<Copy> {
  const root = await mkdtemp(join(tmpdir(), 'cloudphone-guards-'))
  // PostgreSQL's account may pass through: tests start servers from here.
  await cp(project, root, { recursive: true, filter: (source) => belongs(project, source) })
  await linkInstalled(join(project, 'node_modules'), join(root, 'node_modules'))
  return {
    root,
    without: (guard) => removeGuard(root, guard),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }),
  }
}

function belongs(project: string, source: string): boolean {
  const path = relative(project, source)
  return (
    path === '' || !(basename(path) === 'node_modules' || path.startsWith('.') || basename(path) === 'dist')
  )
}

async function linkInstalled(from: string, to: string): Promise<void> {
  await mkdir(join(to, SCOPE), { recursive: true })
  const names = await readdir(from)
  // What tools keep between runs would be shared with them.
  const kept = names.filter((name) => name !== SCOPE && (!name.startsWith('.') || name === '.bin'))
  await Promise.all(kept.map((name) => symlink(join(from, name), join(to, name))))
  // Links like ../../packages/saga: in the copy they lead into the copy.
  for (const name of await readdir(join(from, SCOPE)))
    await symlink(await readlink(join(from, SCOPE, name)), join(to, SCOPE, name))
}

async function removeGuard(root: string, guard: Guard): Promise<AsyncDisposable> {
  const originals = new Map<string, string>()
  const mutants = new Map<string, string>()
  for (const edit of editsOf(guard)) {
    const path = join(root, edit.file)
    const text = mutants.get(path) ?? (await readFile(path, 'utf8'))
    if (!originals.has(path)) originals.set(path, text)
    mutants.set(path, withEdit(guard.name, text, edit))
  }
  const write = async (texts: ReadonlyMap<string, string>): Promise<void> => {
    for (const [path, text] of texts) await writeFile(path, text)
  }
  await write(mutants)
  return { [Symbol.asyncDispose]: () => write(originals) }
}
