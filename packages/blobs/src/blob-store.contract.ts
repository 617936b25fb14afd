import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { expect, it } from 'vitest'
import type { BlobStore } from './blob-store.ts'

/** What every blob store must do, whatever stands behind it. */
export function blobStoreContract(open: () => Promise<BlobStore>): void {
  it('keeps what was committed and tells its size and hash', async () => {
    const store = await open()
    await using draft = await store.draft(Readable.from([Buffer.from('hello '), Buffer.from('world')]))
    expect(draft.sizeBytes).toBe(11)
    expect(draft.sha256).toBe('b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9')
    await draft.commit('apps/one.apk')
    const blob = await store.open('apps/one.apk')
    expect(blob?.sizeBytes).toBe(11)
    expect((await buffer(blob!.body)).toString()).toBe('hello world')
  })

  it('reads a range', async () => {
    const store = await open()
    await using draft = await store.draft(Readable.from([Buffer.from('0123456789')]))
    await draft.commit('digits')
    const part = await store.open('digits', { start: 2, end: 4 })
    expect((await buffer(part!.body)).toString()).toBe('234')
  })

  it('has nothing of a draft that was not committed', async () => {
    const store = await open()
    {
      await using draft = await store.draft(Readable.from([Buffer.from('x')]))
      expect(draft.sizeBytes).toBe(1)
    }
    expect(await Array.fromAsync(store.list(''))).toEqual([])
  })

  it('has nothing of a source that broke, and says why', async () => {
    const store = await open()
    const broken = Readable.from(
      (function* () {
        yield Buffer.from('x')
        throw new Error('the wire was cut')
      })(),
    )
    await expect(store.draft(broken)).rejects.toThrow('the wire was cut')
    expect(await Array.fromAsync(store.list(''))).toEqual([])
  })

  it('deletes, and deletes again', async () => {
    const store = await open()
    await using draft = await store.draft(Readable.from([Buffer.from('x')]))
    await draft.commit('a/b')
    await store.delete('a/b')
    await store.delete('a/b')
    expect(await store.open('a/b')).toBeUndefined()
  })

  it.each(['../escape', '/absolute', 'a/../../b', '', '.hidden', 'a//b'])(
    'refuses the key %j',
    async (key) => {
      const store = await open()
      await expect(store.open(key)).rejects.toThrow('not allowed')
    },
  )

  it('lists keys under a prefix in order', async () => {
    const store = await open()
    for (const key of ['b/2', 'a/1', 'b/1']) {
      await using draft = await store.draft(Readable.from([Buffer.from(key)]))
      await draft.commit(key)
    }
    expect(await Array.fromAsync(store.list('b/'))).toEqual(['b/1', 'b/2'])
  })
}
