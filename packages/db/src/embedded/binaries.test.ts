import { execFile } from 'node:child_process'
import { access, chmod, lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { canReach } from './account.ts'
import { copyBinaries, findBinaries } from './binaries.ts'

const run = promisify(execFile)
let base: string

beforeEach(async () => {
  base = await temporaryFolder('binaries-')
})
afterEach(() => rm(base, { recursive: true, force: true }))

test('a copy runs by itself, is made once, and appears whole however many make it', async () => {
  const installed = await findBinaries()
  const copies = await Promise.all([copyBinaries(installed, base), copyBinaries(installed, base)])
  const directory = join(base, `pg-${installed.version}`)
  expect(copies).toEqual([
    { directory, version: installed.version },
    { directory, version: installed.version },
  ])
  expect(await readdir(base)).toEqual([`pg-${installed.version}`])
  const { stdout } = await run(join(directory, 'bin', 'postgres'), ['--version'])
  expect(stdout).toMatch(/^postgres \(PostgreSQL\) \d+/)
  await access(join(directory, 'bin', 'initdb'))
  const libraries = await readdir(join(directory, 'lib'))
  expect(libraries.some((name) => name.endsWith('.a'))).toBe(false)
})

test('a folder closed to others is out of reach, one that may be passed is not', async () => {
  const stranger = { uid: 54_321, gid: 54_321, name: 'stranger' }
  await chmod(base, 0o700)
  expect(await canReach(stranger, join(base, 'not/there/yet'))).toBe(false)
  await chmod(base, 0o711)
  expect(await canReach(stranger, join(base, 'not/there/yet'))).toBe(true)
  const { uid, gid } = await lstat(base)
  await chmod(base, 0o700)
  expect(await canReach({ uid, gid, name: 'owner' }, base)).toBe(true)
})
