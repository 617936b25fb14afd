import { chmod, mkdtemp, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// Making a database writes some 300 files: 18 ms in memory, over 200 ms on the disk of a busy machine.
const MEMORY = '/dev/shm'
const MEMORY_NEEDED_BYTES = 2 * 1024 ** 3

/** Where `temporaryFolder` may have put something: to look for what crashed runs have left. */
export const temporaryBases: readonly string[] = [MEMORY, tmpdir()]

/**
 * Makes a folder for a PostgreSQL of a test: in memory where there is room (containers often have 64 MiB
 * there), else among the temporary files. The account that PostgreSQL runs as under root may pass through.
 */
export async function temporaryFolder(prefix: string): Promise<string> {
  const roomy = await statfs(MEMORY).then(
    ({ bavail, bsize }) => bavail * bsize >= MEMORY_NEEDED_BYTES,
    () => false,
  )
  const folder = await mkdtemp(join(roomy ? MEMORY : tmpdir(), prefix))
  await chmod(folder, 0o711)
  return folder
}
