import { ApkError } from './apk-error.ts'
import type { Archive } from './archive.ts'
import { parseBinaryXml, type XmlElement } from './binary-xml.ts'
import { type Value, ValueType } from './chunk.ts'
import { Attr, find } from './manifest.ts'
import type { ResourceTable } from './resources.ts'

/** A raster icon as it lies in the APK. */
export interface ApkIcon {
  readonly data: Buffer
  readonly mediaType: 'image/png' | 'image/webp' | 'image/jpeg'
  /** Dots per inch of the configuration it was taken from; 0 when unspecified. */
  readonly density: number
  /** Its name in the archive. */
  readonly path: string
}

/** xhdpi: 96 px launcher icons, sharp enough for a list and small enough to keep. */
const WANTED_DENSITY = 320
const MAX_XML_HOPS = 4

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
  const mediaType = data && sniff(data)
  return data && mediaType && { data, mediaType, density: candidate.density, path: candidate.path }
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

function sniff(data: Buffer): ApkIcon['mediaType'] | undefined {
  if (data.subarray(0, 8).equals(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'))) return 'image/png'
  if (data.toString('latin1', 0, 4) === 'RIFF' && data.toString('latin1', 8, 12) === 'WEBP')
    return 'image/webp'
  if (data.subarray(0, 3).equals(Buffer.from([0xff, 0xd8, 0xff]))) return 'image/jpeg'
  return undefined
}
