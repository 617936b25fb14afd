import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ApkError, type ApkLimits, parseApk } from './apk.ts'
import { Attr } from './manifest.ts'
import { buildApk, compileXml, zip } from './testing/build-apk.ts'

const appium = join(
  dirname(createRequire(import.meta.url).resolve('io.appium.settings/package.json')),
  'apks/settings_apk-debug.apk',
)
/** The head of a PNG: all that the parser looks at. */
function png(mark: number, side = 96): Buffer {
  const head = Buffer.alloc(40, mark)
  head.write('\x89PNG\r\n\x1a\n', 'latin1')
  head.writeUInt32BE(side, 16)
  head.writeUInt32BE(side, 20)
  return head
}

async function refusal(source: string | Buffer, limits?: Partial<ApkLimits>): Promise<string> {
  const error = await parseApk(source, limits).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof ApkError)) throw new Error(`not an ApkError: ${String(error)}`)
  return error.code
}

describe('a real APK', () => {
  it('is described with label and icon through its resource table', async () => {
    const info = await parseApk(appium)
    expect(info).toMatchObject({
      packageName: 'io.appium.settings',
      versionName: '8.0.10',
      label: 'Appium Settings',
      minSdk: 26,
      targetSdk: 35,
      launchableActivity: 'io.appium.settings.Settings',
      abis: [],
    })
    expect(info.permissions).toContain('android.permission.INTERNET')
    expect(info.icon).toMatchObject({ mediaType: 'image/png', density: 320 })
    expect(info.icon?.data.readUInt32BE(16)).toBe(96)
  })

  it('reads the same from bytes as from a path', async () => {
    expect(await parseApk(await readFile(appium))).toEqual(await parseApk(appium))
  })
})

describe('a made APK', () => {
  it('takes the default language, the nearest density, and the ABIs', async () => {
    const info = await parseApk(
      await buildApk({
        packageName: 'dev.example.notes',
        versionCode: 7,
        label: { zh: '笔记', '': 'Notes' },
        icons: {
          160: { path: 'res/a.png', data: png(1) },
          480: { path: 'res/b.png', data: png(2) },
          640: { path: 'res/c.png', data: png(3) },
        },
        files: { 'lib/arm64-v8a/libn.so': Buffer.alloc(3), 'lib/x86_64/libn.so': Buffer.alloc(3) },
      }),
    )
    expect(info).toMatchObject({
      label: 'Notes',
      versionCode: 7,
      abis: ['arm64-v8a', 'x86_64'],
      targetSdk: 21,
    })
    expect(info.launchableActivity).toBe('dev.example.notes.Main')
    expect(info.icon).toMatchObject({ path: 'res/b.png', density: 480 })
  })

  it('prefers a raster of another density to an adaptive icon', async () => {
    const icons = {
      65534: { path: 'res/i.xml', data: compileXml({ name: 'adaptive-icon' }) },
      120: { path: 'res/l.png', data: png(4) },
    }
    expect((await parseApk(await buildApk({ packageName: 'a.b', icons }))).icon?.path).toBe('res/l.png')
  })

  it('has no icon when there are only vectors, even ones that point at themselves', async () => {
    const self = compileXml({
      name: 'adaptive-icon',
      children: [
        {
          name: 'foreground',
          attributes: [{ name: 'drawable', id: Attr.drawable, value: { reference: 0x7f010001 } }],
        },
      ],
    })
    const icons = { 65534: { path: 'res/i.xml', data: self } }
    expect((await parseApk(await buildApk({ packageName: 'a.b', icons }))).icon).toBeUndefined()
  })
})

describe('an icon', () => {
  it('of many pixels in few bytes is passed over', async () => {
    const icons = {
      320: { path: 'res/bomb.png', data: png(1, 65_535) },
      160: { path: 'res/small.png', data: png(2, 48) },
    }
    const { icon } = await parseApk(await buildApk({ packageName: 'a.b', icons }))
    expect(icon).toMatchObject({ path: 'res/small.png', width: 48, height: 48 })
  })

  it('may be a WebP of each kind', async () => {
    for (const [kind, at, bytes] of [
      ['VP8X', 24, [0x5f, 0, 0, 0x5f, 0, 0]],
      ['VP8 ', 26, [0x60, 0, 0x60, 0]],
      ['VP8L', 21, [0x5f, 0xc0, 0x17, 0]],
    ] as const) {
      const data = Buffer.alloc(40)
      data.write('RIFF', 0, 'latin1')
      data.write(`WEBP${kind}`, 8, 'latin1')
      data.set(bytes, at)
      const { icon } = await parseApk(
        await buildApk({ packageName: 'a.b', icons: { 320: { path: 'res/i.webp', data } } }),
      )
      expect(icon, kind).toMatchObject({ mediaType: 'image/webp', width: 96, height: 96 })
    }
  })
})

describe('hostile files', () => {
  let dir: string
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'apk-'))
  })
  afterAll(() => rm(dir, { recursive: true }))

  it('are refused by kind', async () => {
    await writeFile(join(dir, 'empty.apk'), '')
    expect(await refusal(join(dir, 'empty.apk'))).toBe('apk_empty')
    expect(await refusal(Buffer.from('not a zip, but long enough to hold an end record'))).toBe('apk_not_zip')
    expect(await refusal((await readFile(appium)).subarray(0, 100_000))).toBe('apk_not_zip')
    expect(await refusal(await zip({ 'a.txt': Buffer.from('a') }))).toBe('apk_no_manifest')
    expect(await refusal(await zip({ 'AndroidManifest.xml': Buffer.from('<manifest/>') }))).toBe(
      'apk_malformed',
    )
    expect(await refusal(appium, { maxFileBytes: 1000 })).toBe('apk_too_large')
    expect(await refusal(appium, { maxEntries: 10 })).toBe('apk_zip_bomb')
  })

  it('refuses bombs: by ratio, and by an entry too large to read', async () => {
    expect(await refusal(await zip({ 'res/zeros': Buffer.alloc(80 * 1024 ** 2) }))).toBe('apk_zip_bomb')
    expect(await refusal(await zip({ 'AndroidManifest.xml': Buffer.alloc(5 * 1024 ** 2) }))).toBe(
      'apk_zip_bomb',
    )
  })

  it('refuses an entry that unpacks to more than its header says', async () => {
    const apk = await zip({ 'AndroidManifest.xml': Buffer.alloc(100_000) })
    const directory = apk.indexOf(Buffer.from('PK\x01\x02', 'latin1'))
    apk.writeUInt32LE(50, directory + 24)
    expect(await refusal(apk)).toBe('apk_malformed')
  })

  it('refuses overlapping entries', async () => {
    const apk = await zip({ a: Buffer.alloc(10), 'AndroidManifest.xml': Buffer.alloc(10) })
    apk.writeUInt32LE(1_000_000, apk.indexOf(Buffer.from('PK\x01\x02', 'latin1')) + 20)
    expect(await refusal(apk)).toBe('apk_zip_bomb')
  })

  it('refuses package names that would be paths', async () => {
    for (const packageName of ['../../etc', 'a/b.c', 'nodots', '', 'a..b'])
      expect(await refusal(await buildApk({ packageName }))).toBe('apk_malformed')
  })

  it('never throws anything but ApkError for mutated manifests and tables', async () => {
    const icons = { 320: { path: 'res/a.png', data: png(1) } }
    const apk = { packageName: 'dev.example.fuzz', label: { '': 'Fuzz' }, icons, permissions: ['a.b.C'] }
    const { xml, table } = await partsOf(apk)
    const edit = fc.array(
      fc.tuple(fc.nat(), fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255))),
      {
        minLength: 1,
        maxLength: 12,
      },
    )
    await fc.assert(
      fc.asyncProperty(edit, edit, fc.nat(100), async (inXml, inTable, cut) => {
        const bytes = await zip({
          'AndroidManifest.xml': mutate(xml, inXml).subarray(0, xml.length - (cut > 90 ? cut : 0)),
          'resources.arsc': mutate(table, inTable),
          'res/a.png': png(1),
        })
        await parseApk(bytes).catch((error: unknown) => {
          if (!(error instanceof ApkError)) throw error
        })
      }),
      { numRuns: 300 },
    )
  })

  it('never throws anything but ApkError for a mutated archive', async () => {
    const apk = await buildApk({ packageName: 'dev.example.fuzz' })
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        async (edits) => {
          await parseApk(mutate(apk, edits)).catch((error: unknown) => {
            if (!(error instanceof ApkError)) throw error
          })
        },
      ),
      { numRuns: 300 },
    )
  })
})

function mutate(bytes: Buffer, edits: readonly (readonly [number, number])[]): Buffer {
  const copy = Buffer.from(bytes)
  for (const [at, value] of edits) copy[at % copy.length] = value
  return copy
}

async function partsOf(recipe: Parameters<typeof buildApk>[0]): Promise<{ xml: Buffer; table: Buffer }> {
  const { fromBufferPromise } = await import('yauzl')
  const { buffer } = await import('node:stream/consumers')
  const archive = await fromBufferPromise(await buildApk(recipe), { lazyEntries: true, autoClose: false })
  const parts = new Map<string, Buffer>()
  for await (const entry of archive.eachEntry())
    parts.set(entry.fileName, await buffer(await archive.openReadStreamPromise(entry)))
  return { xml: parts.get('AndroidManifest.xml')!, table: parts.get('resources.arsc')! }
}
