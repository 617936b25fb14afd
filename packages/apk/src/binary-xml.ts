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

export interface XmlAttribute {
  readonly name: string
  /** The resource id of the attribute's name (`0x01010003` is `android:name`), 0 when it has none. */
  readonly id: number
  readonly value: Value
  /** The literal text, when the attribute was compiled with one. */
  readonly text: string | undefined
}

export interface XmlElement {
  readonly name: string
  readonly attributes: readonly XmlAttribute[]
  readonly children: XmlElement[]
}

const MAX_DEPTH = 64

interface Pools {
  strings: StringPool
  ids: Buffer
}

/**
 * Parses Android's compiled XML (ResXMLTree in AOSP ResourceTypes.h) into elements; text nodes are left out.
 * The root it answers is a nameless element that holds the document's top elements. Throws `apk_malformed`.
 */
export function parseBinaryXml(bytes: Buffer): XmlElement {
  const document = readChunk(bytes, 0)
  if (document.type !== ChunkType.xml) throw malformed('Not compiled XML')
  const pools: Pools = {
    strings: new StringPool(readChunk(document.bytes, document.headerSize)),
    ids: Buffer.alloc(0),
  }
  const root: XmlElement = { name: '', attributes: [], children: [] }
  const open: XmlElement[] = [root]
  for (const chunk of eachChunk(document.bytes, document.headerSize)) {
    if (chunk.type === ChunkType.xmlResourceMap) pools.ids = chunk.bytes.subarray(chunk.headerSize)
    else if (chunk.type === ChunkType.xmlEndElement) {
      if (open.length > 1) open.pop()
    } else if (chunk.type === ChunkType.xmlStartElement) {
      const element = readElement(chunk, pools)
      open.at(-1)?.children.push(element)
      open.push(element)
      if (open.length > MAX_DEPTH) throw malformed(`XML nested deeper than ${MAX_DEPTH}`)
    }
  }
  return root
}

function readElement(chunk: Chunk, pools: Pools): XmlElement {
  const { bytes, headerSize } = chunk
  const name = pools.strings.get(bytes.readUInt32LE(headerSize + 4)) ?? ''
  const start = headerSize + bytes.readUInt16LE(headerSize + 8)
  const stride = bytes.readUInt16LE(headerSize + 10)
  const count = bytes.readUInt16LE(headerSize + 12)
  // Without this a stride of zero would turn 36 bytes into 65,535 attributes.
  if (count > 0 && (stride < 20 || start + count * stride > bytes.length))
    throw malformed(`<${name}> is cut off`)
  const attributes = Array.from({ length: count }, (_, i) => readAttribute(bytes, start + i * stride, pools))
  return { name, attributes, children: [] }
}

function readAttribute(bytes: Buffer, at: number, pools: Pools): XmlAttribute {
  const nameIndex = bytes.readUInt32LE(at + 4)
  const value = readValue(bytes, at + 12)
  // aapt2 leaves the raw text out of some string attributes; the typed value points to it then.
  const text = pools.strings.get(bytes.readUInt32LE(at + 8))
  return {
    name: pools.strings.get(nameIndex) ?? '',
    id: nameIndex * 4 + 4 <= pools.ids.length ? pools.ids.readUInt32LE(nameIndex * 4) : 0,
    text: text ?? (value.type === ValueType.string ? pools.strings.get(value.data) : undefined),
    value,
  }
}

/** The elements of a name directly below; an attacker's manifest may repeat any of them. */
export function childrenOf(element: XmlElement, ...names: string[]): XmlElement[] {
  return element.children.filter((child) => names.includes(child.name))
}
