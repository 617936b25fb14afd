import { malformed } from './apk-error.ts'

/* Terminology (AOSP `frameworks/base/libs/androidfw/include/androidfw/ResourceTypes.h`):
 * - chunk: {type u16, headerSize u16, size u32} followed by its header's rest and its body; chunks nest
 * - string pool: a chunk of offsets and strings that the others point into
 * - value: {size u16, 0 u8, dataType u8, data u32}: a literal, a string's index, or a reference to a resource
 */

export const ChunkType = {
  stringPool: 0x0001,
  table: 0x0002,
  xml: 0x0003,
  xmlStartElement: 0x0102,
  xmlEndElement: 0x0103,
  xmlResourceMap: 0x0180,
  package: 0x0200,
  type: 0x0201,
} as const

export interface Chunk {
  readonly type: number
  readonly headerSize: number
  /** Exactly the bytes of this chunk, header included. */
  readonly bytes: Buffer
}

/** Reads the chunk at an offset; refuses one that leaves its parent or is smaller than its own header. */
export function readChunk(parent: Buffer, offset: number): Chunk {
  if (offset + 8 > parent.length) throw malformed(`A chunk at ${offset} is cut off`)
  const headerSize = parent.readUInt16LE(offset + 2)
  const size = parent.readUInt32LE(offset + 4)
  if (headerSize < 8 || size < headerSize || offset + size > parent.length)
    throw malformed(`A chunk at ${offset} says it has ${size} bytes; ${parent.length - offset} are there`)
  return { type: parent.readUInt16LE(offset), headerSize, bytes: parent.subarray(offset, offset + size) }
}

/** The chunks between an offset and the end. Trailing bytes too short for a chunk are padding. */
export function* eachChunk(parent: Buffer, offset: number): Generator<Chunk> {
  let at = offset
  while (at + 8 <= parent.length) {
    const chunk = readChunk(parent, at)
    yield chunk
    at += chunk.bytes.length
  }
}

export const ValueType = { reference: 0x01, string: 0x03, intDec: 0x10, intHex: 0x11, boolean: 0x12 } as const

export interface Value {
  readonly type: number
  readonly data: number
}

export function readValue(bytes: Buffer, offset: number): Value {
  return { type: bytes.readUInt8(offset + 3), data: bytes.readUInt32LE(offset + 4) }
}

const UTF8_FLAG = 0x100

/** A string pool, decoded string by string on demand: what a hostile count claims costs nothing. */
export class StringPool {
  readonly #bytes: Buffer
  readonly #count: number
  readonly #offsets: number
  readonly #start: number
  readonly #utf8: boolean

  constructor(chunk: Chunk) {
    if (chunk.type !== ChunkType.stringPool || chunk.headerSize < 28)
      throw malformed('A string pool is missing')
    this.#bytes = chunk.bytes
    this.#count = chunk.bytes.readUInt32LE(8)
    this.#utf8 = (chunk.bytes.readUInt32LE(16) & UTF8_FLAG) !== 0
    this.#offsets = chunk.headerSize
    this.#start = chunk.bytes.readUInt32LE(20)
    if (this.#offsets + this.#count * 4 > chunk.bytes.length) throw malformed('A string pool is cut off')
  }

  /** Undefined for 0xffffffff ("none"); `apk_malformed` for an index that the pool has not. */
  get(index: number): string | undefined {
    if (index === 0xffffffff) return undefined
    if (index >= this.#count) throw malformed(`String ${index} of ${this.#count} does not exist`)
    const at = this.#start + this.#bytes.readUInt32LE(this.#offsets + index * 4)
    return this.#utf8 ? this.#readUtf8(at) : this.#readUtf16(at)
  }

  #readUtf8(start: number): string {
    // Two lengths, each one or two bytes: characters (unused here), then bytes.
    const at = start + ((this.#bytes.readUInt8(start) & 0x80) === 0 ? 1 : 2)
    const first = this.#bytes.readUInt8(at)
    const long = (first & 0x80) !== 0
    const length = long ? ((first & 0x7f) << 8) | this.#bytes.readUInt8(at + 1) : first
    return this.#slice(at + (long ? 2 : 1), length, 'utf8')
  }

  #readUtf16(start: number): string {
    const first = this.#bytes.readUInt16LE(start)
    const long = (first & 0x8000) !== 0
    const length = long ? (first & 0x7fff) * 65_536 + this.#bytes.readUInt16LE(start + 2) : first
    return this.#slice(start + (long ? 4 : 2), length * 2, 'utf16le')
  }

  #slice(start: number, length: number, encoding: 'utf8' | 'utf16le'): string {
    if (start + length > this.#bytes.length) throw malformed('A string runs out of its pool')
    return this.#bytes.toString(encoding, start, start + length)
  }
}
