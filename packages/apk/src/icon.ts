import { ApkError } from './apk-error.ts'
import type { Archive } from './archive.ts'
import { parseBinaryXml, type XmlElement } from './binary-xml.ts'
import { type Value, ValueType } from './chunk.ts'
import { Attr, find } from './manifest.ts'
import type { ResourceTable } from './resources.ts'

/** A raster icon as it lies in the APK. */
export interface ApkIcon {
  readonly data: Buffer
  readonly mediaType: 'image/png' | 'image/webp'
  /** Pixels. */
  readonly width: number
  readonly height: number
  /** Dots per inch of the configuration it was taken from; 0 when unspecified. */
  readonly density: number
  /** Its name in the archive. */
  readonly path: string
}

/** xhdpi: 96 px launcher icons, sharp enough for a list and small enough to keep. */
const WANTED_DENSITY = 320
const MAX_XML_HOPS = 4
const MAX_SIDE_PX = 1024
const PNG_SIGNATURE = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')

interface Candidate {
  readonly path: string
  readonly density: number
}

/**
 * The best raster for the manifest's icons: any density of the icon itself first, then what an adaptive icon or
 * another drawable XML is made of (its foreground before its background). Undefined when there are only vectors.
 */
export async function findIcon(
  icons: readonly Value[],
  table: ResourceTable | undefined,
  archive: Archive,
): Promise<ApkIcon | undefined> {
  if (table === undefined) return undefined
  let values = icons
  for (let hop = 0; hop < MAX_XML_HOPS && values.length > 0; hop += 1) {
    const candidates = values
      .flatMap((value) => candidatesOf(value, table))
      .filter(({ path }) => archive.has(path))
    for (const candidate of byFitness(candidates)) {
      const icon = await readIcon(candidate, archive)
      if (icon !== undefined) return icon
    }
    values = await drawablesOf(candidates, archive)
  }
  return undefined
}

function candidatesOf(value: Value, table: ResourceTable): Candidate[] {
  if (value.type !== ValueType.reference) return []
  return table.resolve(value.data).flatMap(({ value: found, density }) => {
    const path = table.text(found)
    return path === undefined ? [] : [{ path, density: density > 1000 ? 0 : density }]
  })
}

function byFitness(candidates: readonly Candidate[]): Candidate[] {
  // A larger one shrinks well, a smaller one does not grow: being below the wish counts double.
  const distance = ({ density }: Candidate) =>
    density >= WANTED_DENSITY ? density - WANTED_DENSITY : (WANTED_DENSITY - (density || 160)) * 2
  return candidates.filter(({ path }) => !path.endsWith('.xml')).sort((a, b) => distance(a) - distance(b))
}

async function readIcon(candidate: Candidate, archive: Archive): Promise<ApkIcon | undefined> {
  const data = await readOptional(archive, candidate.path, archive.limits.maxIconBytes)
  const image = data && measure(data)
  // A few bytes can claim 65,535 x 65,535 pixels: whoever draws the icon must not have to find out.
  if (data === undefined || image === undefined || Math.min(image.width, image.height) < 1) return undefined
  if (Math.max(image.width, image.height) > MAX_SIDE_PX) return undefined
  return { data, ...image, density: candidate.density, path: candidate.path }
}

async function drawablesOf(candidates: readonly Candidate[], archive: Archive): Promise<Value[]> {
  const paths = new Set(candidates.map(({ path }) => path).filter((path) => path.endsWith('.xml')))
  const found: Value[] = []
  for (const path of [...paths].slice(0, 8)) {
    const bytes = await readOptional(archive, path, archive.limits.maxXmlBytes)
    if (bytes !== undefined) found.push(...referencesOf(parseBinaryXml(bytes)))
  }
  return found.slice(0, 32)
}

function referencesOf(root: XmlElement): Value[] {
  const found: { value: Value; background: boolean }[] = []
  const visit = (element: XmlElement, background: boolean): void => {
    for (const id of [Attr.drawable, Attr.src]) {
      const attribute = find(element, id)
      if (attribute !== undefined) found.push({ value: attribute.value, background })
    }
    for (const child of element.children) visit(child, background || child.name === 'background')
  }
  visit(root, false)
  return found.sort((a, b) => Number(a.background) - Number(b.background)).map(({ value }) => value)
}

/** An icon that is too big or broken costs the APK its icon, not its description. */
async function readOptional(archive: Archive, path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    return await archive.read(path, maxBytes)
  } catch (error) {
    if (error instanceof ApkError) return undefined
    throw error
  }
}

/** Kind and size from the header: PNG's IHDR, or WebP's VP8, VP8L or VP8X chunk (RFC 9649). */
function measure(data: Buffer): Pick<ApkIcon, 'mediaType' | 'width' | 'height'> | undefined {
  if (data.length < 30) return undefined
  if (data.subarray(0, 8).equals(PNG_SIGNATURE))
    return { mediaType: 'image/png', width: data.readUInt32BE(16), height: data.readUInt32BE(20) }
  if (data.toString('latin1', 0, 4) !== 'RIFF' || data.toString('latin1', 8, 12) !== 'WEBP') return undefined
  const size = webpSize(data)
  return size && { mediaType: 'image/webp', ...size }
}

function webpSize(data: Buffer): { width: number; height: number } | undefined {
  switch (data.toString('latin1', 12, 16)) {
    case 'VP8X':
      return { width: data.readUIntLE(24, 3) + 1, height: data.readUIntLE(27, 3) + 1 }
    case 'VP8 ':
      return { width: data.readUInt16LE(26) & 0x3fff, height: data.readUInt16LE(28) & 0x3fff }
    case 'VP8L': {
      const bits = data.readUInt32LE(21)
      return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 }
    }
    default:
      return undefined
  }
}
