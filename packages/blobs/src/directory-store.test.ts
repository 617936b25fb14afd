import { mkdtemp, readdir, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { Readable } from 'node:stream'
import { afterEach, describe, expect, it } from 'vitest'
import { blobStoreContract } from './blob-store.contract.ts'
import { openDirectoryStore } from './directory-store.ts'

const directories: string[] = []

async function fresh(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'blobs-'))
  directories.push(directory)
  return directory
}

afterEach(async () => {
  for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true })
})

describe('directory store', () => {
  blobStoreContract(async () => openDirectoryStore(await fresh()))

  it('clears drafts that a dead process left long ago, and no others', async () => {
    const directory = await fresh()
    const store = await openDirectoryStore(directory)
    const old = await store.draft(Readable.from([Buffer.from('x')]))
    const young = await store.draft(Readable.from([Buffer.from('y')]))
    const twoDaysAgo = new Date(Date.now() - 2 * 24 * 3_600_000)
    await utimes(old.path, twoDaysAgo, twoDaysAgo)
    await openDirectoryStore(directory)
    expect(await readdir(join(directory, '.drafts'))).toEqual([basename(young.path)])
  })
})
