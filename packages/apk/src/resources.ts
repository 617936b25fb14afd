import { malformed } from './apk-error.ts'
import {
  type Chunk,
  ChunkType,
  eachChunk,
  readChunk,
  readValue,
  StringPool,
  type Value,
  ValueType,
} from './chunk.ts'

/** One value of a resource and the configuration it is for. */
export interface ResourceValue {
  readonly value: Value
  /** Dots per inch; 0 unspecified, 0xfffe any, 0xffff none. */
  readonly density: number
  /** Two letters, empty for the default. */
  readonly language: string
}

const COMPLEX = 0x0001
const COMPACT = 0x0008
const SPARSE = 0x01
const OFFSET16 = 0x02
const NO_ENTRY = 0xffffffff
const MAX_TYPE_CHUNKS = 65_536
const MAX_REFERENCES = 8

/**
 * `resources.arsc`, read lazily: opening it indexes the type chunks only, a lookup touches those of its type.
 * (Libraries that expand the table into objects need some 30 times its size in memory.)
 * Format: ResTable_* in AOSP ResourceTypes.h.
 */
export class ResourceTable {
  readonly #strings: StringPool
  /** Key: package id and type id, as in the upper half of a resource id. */
  readonly #types = new Map<number, Chunk[]>()

  constructor(bytes: Buffer) {
    const table = readChunk(bytes, 0)
    if (table.type !== ChunkType.table) throw malformed('resources.arsc is not a resource table')
    let strings: StringPool | undefined
    let typeChunks = 0
    for (const chunk of eachChunk(table.bytes, table.headerSize)) {
      if (chunk.type === ChunkType.stringPool) strings ??= new StringPool(chunk)
      if (chunk.type !== ChunkType.package) continue
      for (const type of eachChunk(chunk.bytes, chunk.headerSize)) {
        if (type.type !== ChunkType.type) continue
        typeChunks += 1
        if (typeChunks > MAX_TYPE_CHUNKS)
          throw malformed(`resources.arsc has more than ${MAX_TYPE_CHUNKS} types`)
        this.#index(chunk.bytes.readUInt32LE(8) & 0xff, type)
      }
    }
    if (strings === undefined) throw malformed('resources.arsc has no strings')
    this.#strings = strings
  }

  #index(packageId: number, type: Chunk): void {
    const key = packageId * 256 + type.bytes.readUInt8(8)
    const known = this.#types.get(key)
    if (known === undefined) this.#types.set(key, [type])
    else known.push(type)
  }

  /** All values of a resource with references followed; empty when the table has none. */
  resolve(id: number): ResourceValue[] {
    return this.#resolve(id, new Set())
  }

  /** The text of a string value. */
  text(value: Value): string | undefined {
    return value.type === ValueType.string ? this.#strings.get(value.data) : undefined
  }

  // `seen` is shared by all branches, so that the work is linear in ids however the references are woven.
  #resolve(id: number, seen: Set<number>): ResourceValue[] {
    if (seen.has(id) || seen.size >= MAX_REFERENCES) return []
    seen.add(id)
    const found: ResourceValue[] = []
    for (const type of this.#types.get(id >>> 16) ?? []) {
      const value = readEntry(type, id & 0xffff)
      if (value === undefined) continue
      if (value.type === ValueType.reference) found.push(...this.#resolve(value.data, seen))
      else found.push({ value, ...readConfig(type.bytes) })
    }
    return found
  }
}

function readConfig(type: Buffer): { density: number; language: string } {
  // The configuration follows the 20 bytes of ResTable_type; older files have a shorter one.
  const size = type.readUInt32LE(20)
  const first = size >= 12 ? type.readUInt8(28) : 0
  const second = size >= 12 ? type.readUInt8(29) : 0
  return {
    density: size >= 16 ? type.readUInt16LE(34) : 0,
    language: first === 0 ? '' : String.fromCharCode(first, second),
  }
}

function readEntry(type: Chunk, index: number): Value | undefined {
  const { bytes } = type
  const offset = entryOffset(type, index)
  if (offset === undefined) return undefined
  const at = bytes.readUInt32LE(16) + offset
  const flags = bytes.readUInt16LE(at + 2)
  // Android 14's compact form puts the value's type into the flags and its data where the key's index was.
  if ((flags & COMPACT) !== 0) return { type: flags >>> 8, data: bytes.readUInt32LE(at + 4) }
  if ((flags & COMPLEX) !== 0) return undefined
  return readValue(bytes, at + bytes.readUInt16LE(at))
}

function entryOffset(type: Chunk, index: number): number | undefined {
  const { bytes, headerSize } = type
  const flags = bytes.readUInt8(9)
  const count = bytes.readUInt32LE(12)
  if ((flags & SPARSE) !== 0) return sparseOffset(type, count, index)
  if (index >= count) return undefined
  if ((flags & OFFSET16) !== 0) {
    const offset = bytes.readUInt16LE(headerSize + index * 2)
    return offset === 0xffff ? undefined : offset * 4
  }
  const offset = bytes.readUInt32LE(headerSize + index * 4)
  return offset === NO_ENTRY ? undefined : offset
}

function sparseOffset(type: Chunk, count: number, index: number): number | undefined {
  for (let i = 0; i < count; i += 1) {
    const at = type.headerSize + i * 4
    if (type.bytes.readUInt16LE(at) === index) return type.bytes.readUInt16LE(at + 2) * 4
  }
  return undefined
}
