import { buffer } from 'node:stream/consumers'
import { ZipFile } from 'yazl'
import { ChunkType, ValueType } from '../chunk.ts'
import { Attr } from '../manifest.ts'

/* Makes small, valid APKs for tests: a compiled manifest, a resource table and an icon, in the format that
 * AOSP ResourceTypes.h describes. They are unsigned: the phone does not check signatures. */

export interface ApkRecipe {
  readonly packageName: string
  readonly versionCode?: number
  readonly versionName?: string
  /** A literal, or texts by language with '' as the default. */
  readonly label?: string | Readonly<Record<string, string>>
  readonly permissions?: readonly string[]
  /** Class name of the launchable activity. */
  readonly activity?: string
  /** Files by density, such as `{ 320: { path: 'res/icon.png', data } }`. */
  readonly icons?: Readonly<Record<number, { path: string; data: Buffer }>>
  /** Further files, such as `lib/arm64-v8a/libx.so`. */
  readonly files?: Readonly<Record<string, Buffer>>
}

const LABEL_ID = 0x7f010000
const ICON_ID = 0x7f010001

/** The bytes of an APK made to the recipe. */
export async function buildApk(recipe: ApkRecipe): Promise<Buffer> {
  const files: Record<string, Buffer> = {
    'AndroidManifest.xml': manifestOf(recipe),
    'resources.arsc': tableOf(recipe),
    'classes.dex': Buffer.from('dex\n035\0'),
    ...Object.fromEntries(Object.values(recipe.icons ?? {}).map(({ path, data }) => [path, data])),
    ...recipe.files,
  }
  return await zip(files)
}

/** A zip archive of the files. */
export async function zip(files: Readonly<Record<string, Buffer>>): Promise<Buffer> {
  const archive = new ZipFile()
  for (const [name, data] of Object.entries(files)) archive.addBuffer(data, name, { mtime: new Date(0) })
  archive.end()
  return await buffer(archive.outputStream)
}

interface Attribute {
  readonly name: string
  readonly id?: number
  readonly value: string | number | { readonly reference: number }
}

/** An element to be compiled. */
export interface Element {
  readonly name: string
  readonly attributes?: readonly Attribute[]
  readonly children?: readonly Element[]
}

function named(name: string, value: string): Element {
  return { name, attributes: [{ name: 'name', id: Attr.name, value }] }
}

function manifestOf(recipe: ApkRecipe): Buffer {
  const { label = recipe.packageName, activity = '.Main' } = recipe
  const application: Attribute[] = [
    { name: 'label', id: Attr.label, value: typeof label === 'string' ? label : { reference: LABEL_ID } },
  ]
  if (recipe.icons !== undefined)
    application.push({ name: 'icon', id: Attr.icon, value: { reference: ICON_ID } })
  const launch = [
    named('action', 'android.intent.action.MAIN'),
    named('category', 'android.intent.category.LAUNCHER'),
  ]
  return compileXml({
    name: 'manifest',
    attributes: [
      { name: 'package', value: recipe.packageName },
      { name: 'versionCode', id: Attr.versionCode, value: recipe.versionCode ?? 1 },
      { name: 'versionName', id: Attr.versionName, value: recipe.versionName ?? '1.0' },
    ],
    children: [
      { name: 'uses-sdk', attributes: [{ name: 'minSdkVersion', id: Attr.minSdkVersion, value: 21 }] },
      ...(recipe.permissions ?? []).map((permission) => named('uses-permission', permission)),
      {
        name: 'application',
        attributes: application,
        children: [
          { ...named('activity', activity), children: [{ name: 'intent-filter', children: launch }] },
        ],
      },
    ],
  })
}

/** Compiles elements to binary XML. Strings with a resource id come first in the pool, as the format demands. */
export function compileXml(root: Element): Buffer {
  const ids = new Map<string, number>()
  const strings = new Set<string>()
  const collect = (element: Element): void => {
    strings.add(element.name)
    for (const { name, id, value } of element.attributes ?? []) {
      if (id !== undefined) ids.set(name, id)
      strings.add(name)
      if (typeof value === 'string') strings.add(value)
    }
    for (const child of element.children ?? []) collect(child)
  }
  collect(root)
  const pool = [...ids.keys(), ...[...strings].filter((each) => !ids.has(each))]
  const index = new Map(pool.map((each, i) => [each, i]))
  return chunk(ChunkType.xml, Buffer.alloc(0), [
    stringPool(pool),
    chunk(ChunkType.xmlResourceMap, Buffer.alloc(0), [...ids.values()].map(u32)),
    ...elementChunks(root, (text) => index.get(text) ?? 0xffffffff),
  ])
}

function elementChunks(element: Element, index: (text: string) => number): Buffer[] {
  const attributes = element.attributes ?? []
  const head = [u32(0), u32(0xffffffff), u32(0xffffffff), u32(index(element.name))]
  const start = chunk(ChunkType.xmlStartElement, Buffer.concat(head.slice(0, 2)), [
    ...head.slice(2),
    ...[20, 20, attributes.length, 0, 0, 0].map(u16),
    ...attributes.map(({ name, value }) =>
      Buffer.concat([
        u32(0xffffffff),
        u32(index(name)),
        u32(typeof value === 'string' ? index(value) : 0xffffffff),
        typedValue(value, index),
      ]),
    ),
  ])
  const end = chunk(ChunkType.xmlEndElement, Buffer.concat(head.slice(0, 2)), head.slice(2))
  return [start, ...(element.children ?? []).flatMap((child) => elementChunks(child, index)), end]
}

function typedValue(value: Attribute['value'], index: (text: string) => number): Buffer {
  if (typeof value === 'string') return valueBytes(ValueType.string, index(value))
  if (typeof value === 'number') return valueBytes(ValueType.intDec, value)
  return valueBytes(ValueType.reference, value.reference)
}

function valueBytes(type: number, data: number): Buffer {
  return Buffer.concat([u16(8), Buffer.from([0, type]), u32(data)])
}

function tableOf(recipe: ApkRecipe): Buffer {
  const labels = Object.entries(typeof recipe.label === 'object' ? recipe.label : {})
  const icons = Object.entries(recipe.icons ?? {})
  const strings = [...labels.map(([, text]) => text), ...icons.map(([, { path }]) => path)]
  const types = [
    ...labels.map(([language], i) => typeChunk({ language, density: 0, entries: [i, undefined] })),
    ...icons.map(([density], i) =>
      typeChunk({ language: '', density: Number(density), entries: [undefined, labels.length + i] }),
    ),
  ]
  const packageHeader = Buffer.concat([u32(0x7f), Buffer.alloc(256), ...[0, 0, 0, 0, 0].map(u32)])
  return chunk(ChunkType.table, u32(1), [stringPool(strings), chunk(ChunkType.package, packageHeader, types)])
}

function typeChunk(type: { language: string; density: number; entries: (number | undefined)[] }): Buffer {
  const config = Buffer.alloc(28)
  config.writeUInt32LE(28, 0)
  config.write(type.language, 8, 'latin1')
  config.writeUInt16LE(type.density, 14)
  const headerSize = 20 + config.length
  const offsets = type.entries.map((entry, i) => u32(entry === undefined ? 0xffffffff : i * 16))
  const entries = type.entries.map((entry) =>
    Buffer.concat([u16(8), u16(0), u32(0), valueBytes(ValueType.string, entry ?? 0)]),
  )
  const head = [Buffer.from([1, 0, 0, 0]), u32(offsets.length), u32(headerSize + offsets.length * 4), config]
  return chunk(ChunkType.type, Buffer.concat(head), [...offsets, ...entries])
}

function stringPool(strings: readonly string[]): Buffer {
  const encoded = strings.map((text) => {
    const bytes = Buffer.from(text, 'utf16le')
    return Buffer.concat([u16(text.length), bytes, u16(0)])
  })
  let at = 0
  const offsets = encoded.map((bytes) => {
    const offset = u32(at)
    at += bytes.length
    return offset
  })
  const padding = Buffer.alloc((4 - (at % 4)) % 4)
  const header = [strings.length, 0, 0, 28 + offsets.length * 4, 0].map(u32)
  return chunk(ChunkType.stringPool, Buffer.concat(header), [...offsets, ...encoded, padding])
}

function chunk(type: number, header: Buffer, body: readonly Buffer[]): Buffer {
  const content = Buffer.concat([header, ...body])
  return Buffer.concat([u16(type), u16(8 + header.length), u32(8 + content.length), content])
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  return bytes
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value >>> 0)
  return bytes
}
