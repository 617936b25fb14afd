import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PhoneFs } from '../android.ts'
import { openPhone, type TestPhone } from '../testing/open-phone.ts'

let phone: TestPhone
let fs: PhoneFs
let outside: string
beforeAll(async () => {
  phone = await openPhone()
  fs = phone.android.fs
  outside = await mkdtemp(join(tmpdir(), 'outside-'))
  await writeFile(join(outside, 'secret'), 'secret of the host')
})
afterAll(async () => {
  await phone.close()
  await rm(outside, { recursive: true })
})

async function put(path: string, content: string | Buffer): Promise<void> {
  await pipeline(
    Readable.from([Buffer.from(content)]),
    await fs.write(path, { mode: 0o644, mtime: 1_700_000_000 }),
  )
}
const get = async (path: string) => await text(await fs.read(path))

describe('the files of a phone', () => {
  it('are written with parents, mode and time, and read back by every name of the shared storage', async () => {
    await put('/sdcard/Download/new/a.txt', 'hello')
    for (const root of [
      '/sdcard',
      '/storage/emulated/0',
      '/data/media/0',
      '/mnt/sdcard',
      '/storage/self/primary',
    ])
      expect(await get(`${root}/Download/new/a.txt`)).toBe('hello')
    expect(await fs.stat('/sdcard/Download/new/a.txt')).toEqual({
      mode: 0o100644,
      size: 5,
      mtime: 1_700_000_000,
    })
    expect((await fs.lstat('/sdcard'))?.mode).toBe(0o120777)
    expect((await fs.stat('/sdcard'))!.mode & 0o170000).toBe(0o040000)
    expect((await fs.list('/sdcard/Download/new')).map((each) => each.name)).toEqual(['a.txt'])
  })

  it('appear only when the stream has ended well', async () => {
    await put('/sdcard/whole.bin', 'old')
    const half = await fs.write('/sdcard/whole.bin', { mode: 0o644 })
    half.write('half of the new')
    half.on('error', () => undefined)
    half.destroy(new Error('the cable is out'))
    await finished(half).catch(() => undefined)
    expect(await get('/sdcard/whole.bin')).toBe('old')
    expect(await readdir(join(phone.dir, 'staging'))).toEqual([])
  })

  it('are closed to the shell user outside the shared storage', async () => {
    await expect(fs.write('/system/x', { mode: 0o644 })).rejects.toMatchObject({ code: 'EROFS' })
    await expect(fs.write('/data/data/x', { mode: 0o644 })).rejects.toMatchObject({ code: 'EACCES' })
    await expect(fs.write('/data/system/packages.json', { mode: 0o644 })).rejects.toMatchObject({
      code: 'EACCES',
    })
    await expect(fs.read('/data/system/packages.json')).rejects.toMatchObject({ code: 'EACCES' })
    await expect(fs.list('/data')).rejects.toMatchObject({ code: 'EACCES' })
    await expect(fs.list('/data/app')).rejects.toMatchObject({ code: 'EACCES' })
    await expect(fs.remove('/sdcard/../../app')).rejects.toMatchObject({ code: 'EACCES' })
    await expect(fs.read('/nope')).rejects.toMatchObject({
      code: 'ENOENT',
      message: 'No such file or directory',
    })
  })

  it('cannot be left by .. or by links', async () => {
    const media = join(phone.dir, 'data/media/0')
    await symlink(outside, join(media, 'to-dir'))
    await symlink(join(outside, 'secret'), join(media, 'to-file'))
    await symlink('../../../../../../../..', join(media, 'up'))
    await symlink('loop', join(media, 'loop'))
    for (const path of [
      '/sdcard/to-dir/secret',
      '/sdcard/to-file',
      `/sdcard/up${outside}/secret`,
      `/sdcard/../../..${outside}/secret`,
    ])
      await expect(fs.read(path), path).rejects.toMatchObject({ code: 'ENOENT' })
    await expect(fs.read('/sdcard/loop')).rejects.toMatchObject({
      message: 'Too many symbolic links encountered',
    })
    await expect(fs.write('/sdcard/to-dir/planted', { mode: 0o644 })).rejects.toMatchObject({
      name: 'PhoneFsError',
    })
    await expect(fs.write('/sdcard/to-file', { mode: 0o644 })).rejects.toMatchObject({ name: 'PhoneFsError' })
    expect(await readdir(outside)).toEqual(['secret'])
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('secret of the host')
    await expect(fs.read('/sdcard/a\0b')).rejects.toMatchObject({ code: 'EINVAL' })
    for (const name of ['to-dir', 'to-file', 'up', 'loop']) await fs.remove(`/sdcard/${name}`)
  })

  it('never let a path reach the host, however it is put together', async () => {
    const media = join(phone.dir, 'data/media/0')
    await mkdir(join(media, 'links'), { recursive: true })
    await symlink('..', join(media, 'links/p'))
    await symlink('/', join(media, 'links/r'))
    await symlink(outside, join(media, 'links/o'))
    const part = fc.constantFrom(
      '..',
      '.',
      '',
      'sdcard',
      'links',
      'p',
      'r',
      'o',
      'data',
      'media',
      '0',
      ...outside.split('/'),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(part, { maxLength: 14 }), async (parts) => {
        const path = `/${parts.join('/')}/secret`
        const content = await fs.read(path).then(text, (error: Error) => error.name)
        expect(content).toBe('PhoneFsError')
      }),
      { numRuns: 500 },
    )
    await phone.out('rm -r /sdcard/links')
  })

  it('end where the storage ends, and give the space back', async () => {
    const big = phone.run('cat /dev/zero > /sdcard/fill')
    expect(await big).toMatchObject({ code: 1, err: expect.stringContaining('No space left on device') })
    expect(await fs.stat('/sdcard/fill')).toBeUndefined()
    await put('/sdcard/after', 'fits again')
    expect(await get('/sdcard/after')).toBe('fits again')
  })

  it('stream a large file in constant memory', async () => {
    const roomy = await openPhone({ profile: { storageMb: 600 } })
    const size = 300 * 1024 * 1024
    const source = new PassThrough({ highWaterMark: 1024 * 1024 })
    const piece = Buffer.alloc(1024 * 1024, 7)
    let highest = 0
    const feed = (async () => {
      for (let sent = 0; sent < size; sent += piece.length) {
        if (!source.write(piece)) await new Promise((resolve) => source.once('drain', resolve))
        highest = Math.max(highest, process.memoryUsage().arrayBuffers)
      }
      source.end()
    })()
    const before = process.memoryUsage().arrayBuffers
    await pipeline(source, await roomy.android.fs.write('/sdcard/big', { mode: 0o644 }))
    await feed
    expect((await roomy.android.fs.stat('/sdcard/big'))?.size).toBe(size)
    expect(highest - before).toBeLessThan(64 * 1024 * 1024)
    await roomy.close()
  })

  it('are handled by the usual commands', async () => {
    const dir = '/data/local/tmp/work'
    expect(
      await phone.out(
        `mkdir -p ${dir}/sub && cd ${dir} && echo abc > a && cp a sub/b && mv a c && ls -a && ls sub`,
      ),
    ).toBe('.\n..\nc\nsub\nb')
    expect(
      await phone.out(`sha256sum -b ${dir}/c; md5sum ${dir}/c; stat -c '%s %a' ${dir}/c; du ${dir}/sub`),
    ).toBe(
      `edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb\n0bee89b07a248e27c83fc3d5951213c1  ${dir}/c\n4 660\n1\t${dir}/sub`,
    )
    expect(await phone.out(`ls -l ${dir}/c`)).toMatch(/^-rw-rw---- 1 shell +shell +4 2026-03-14 10:09 /)
    expect(await phone.run(`mkdir ${dir}; rm ${dir}; rm -r ${dir}; ls ${dir}`)).toMatchObject({
      code: 1,
      err: `mkdir: ${dir}: File exists\nrm: ${dir}: Is a directory\nls: ${dir}: No such file or directory\n`,
    })
    expect(
      await phone.out('cat /proc/version; df -h /data; cat /proc/cpuinfo | grep -c processor'),
    ).toContain('Linux version')
    expect(await phone.out('for i in 1 2 3; do touch /sdcard/t$i; done; ls /sdcard/t*; rm /sdcard/t*')).toBe(
      '/sdcard/t1\n/sdcard/t2\n/sdcard/t3',
    )
  })
})
