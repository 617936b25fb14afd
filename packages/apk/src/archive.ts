import { stat } from 'node:fs/promises'
import { type Entry, fromBufferPromise, openPromise, type ZipFile } from 'yauzl'
import { ApkError, malformed } from './apk-error.ts'

/** What a hostile archive may make us spend. Every bound has a default that real APKs stay far below. */
export interface ApkLimits {
  /** The file itself. */
  readonly maxFileBytes: number
  readonly maxEntries: number
  /** Sum of what all entries say they unpack to. */
  readonly maxTotalBytes: number
  /** Sum unpacked / size of the file, looked at once the sum exceeds 64 MiB: small files of zeros are no attack. */
  readonly maxRatio: number
  /** `AndroidManifest.xml` and other binary XML, unpacked. */
  readonly maxXmlBytes: number
  /** `resources.arsc`, unpacked; it is held in memory while parsing. */
  readonly maxResourcesBytes: number
  /** The icon, unpacked. */
  readonly maxIconBytes: number
}

export const DEFAULT_LIMITS: ApkLimits = {
  maxFileBytes: 2 * 1024 ** 3,
  maxEntries: 65_535,
  maxTotalBytes: 8 * 1024 ** 3,
  maxRatio: 120,
  maxXmlBytes: 4 * 1024 ** 2,
  maxResourcesBytes: 96 * 1024 ** 2,
  maxIconBytes: 4 * 1024 ** 2,
}

const RATIO_FREE_BYTES = 64 * 1024 ** 2
/** Payloads that are never read here; leaving them out keeps the name table small. */
const UNREAD = /\.(dex|so|kotlin_metadata|kotlin_builtins|class)$/

/** The parts of an APK that a description is made from, read one at a time within the limits. */
export class Archive {
  readonly sizeBytes: number
  readonly entryCount: number
  /** ABIs that `lib/<abi>/` names, in the order of the archive. */
  readonly abis: readonly string[]
  readonly #zip: ZipFile
  readonly #entries: ReadonlyMap<string, Entry>
  readonly #limits: ApkLimits

  constructor(zip: ZipFile, sizeBytes: number, listing: Listing, limits: ApkLimits) {
    this.#zip = zip
    this.sizeBytes = sizeBytes
    this.entryCount = listing.count
    this.abis = [...listing.abis]
    this.#entries = listing.entries
    this.#limits = limits
  }

  get limits(): ApkLimits {
    return this.#limits
  }

  has(name: string): boolean {
    return this.#entries.has(name)
  }

  /** The unpacked bytes of one entry; `apk_zip_bomb` beyond `maxBytes`, `apk_malformed` when it cannot be unpacked. */
  async read(name: string, maxBytes: number): Promise<Buffer> {
    const entry = this.#entries.get(name)
    if (entry === undefined) throw malformed(`${name} is not in the archive`)
    if (entry.uncompressedSize > maxBytes) throw tooBig(name, entry.uncompressedSize, maxBytes)
    const parts: Buffer[] = []
    let total = 0
    try {
      const stream = await this.#zip.openReadStreamPromise(entry)
      for await (const part of stream as AsyncIterable<Buffer>) {
        total += part.length
        if (total > maxBytes) throw tooBig(name, total, maxBytes)
        parts.push(part)
      }
    } catch (error) {
      if (error instanceof ApkError) throw error
      throw malformed(`${name} cannot be unpacked: ${reason(error)}`, error)
    }
    return Buffer.concat(parts, total)
  }

  close(): void {
    this.#zip.close()
  }
}

/** Opens a file by path, or bytes in memory, and checks its directory against the limits. Close it after use. */
export async function openArchive(source: string | Buffer, limits: ApkLimits): Promise<Archive> {
  const sizeBytes = typeof source === 'string' ? (await stat(source)).size : source.length
  if (sizeBytes === 0) throw new ApkError('apk_empty', 'The file is empty')
  if (sizeBytes > limits.maxFileBytes)
    throw new ApkError('apk_too_large', `The file has ${sizeBytes} bytes, ${limits.maxFileBytes} are allowed`)
  const zip = await openZip(source)
  try {
    return new Archive(zip, sizeBytes, await list(zip, sizeBytes, limits), limits)
  } catch (error) {
    zip.close()
    throw error
  }
}

async function openZip(source: string | Buffer): Promise<ZipFile> {
  const options = { autoClose: false, lazyEntries: true, validateEntrySizes: true }
  try {
    return typeof source === 'string'
      ? await openPromise(source, options)
      : await fromBufferPromise(source, options)
  } catch (error) {
    throw new ApkError('apk_not_zip', `The file is not a zip archive: ${reason(error)}`, { cause: error })
  }
}

interface Listing {
  count: number
  readonly entries: Map<string, Entry>
  readonly abis: Set<string>
}

async function list(zip: ZipFile, sizeBytes: number, limits: ApkLimits): Promise<Listing> {
  if (zip.entryCount > limits.maxEntries) throw tooMany(zip.entryCount, limits)
  const listing: Listing = { count: 0, entries: new Map(), abis: new Set() }
  let packed = 0
  let unpacked = 0
  try {
    for await (const entry of zip.eachEntry()) {
      listing.count += 1
      if (listing.count > limits.maxEntries) throw tooMany(listing.count, limits)
      packed += entry.compressedSize
      unpacked += entry.uncompressedSize
      checkSums({ packed, unpacked, sizeBytes, limits })
      keep(listing, entry)
    }
  } catch (error) {
    if (error instanceof ApkError) throw error
    throw malformed(`The zip directory is broken: ${reason(error)}`, error)
  }
  return listing
}

function keep(listing: Listing, entry: Entry): void {
  const abi = /^lib\/([\w-]{1,32})\/[^/]+\.so$/.exec(entry.fileName)?.[1]
  if (abi !== undefined) listing.abis.add(abi)
  // The first entry of a name wins, as in Android's own reader; a second one is how signature tricks begin.
  if (!UNREAD.test(entry.fileName) && !listing.entries.has(entry.fileName))
    listing.entries.set(entry.fileName, entry)
}

function checkSums(sums: { packed: number; unpacked: number; sizeBytes: number; limits: ApkLimits }): void {
  const { packed, unpacked, sizeBytes, limits } = sums
  // More packed bytes than the file has means that entries overlap: the trick of the non-recursive zip bomb.
  if (packed > sizeBytes)
    throw new ApkError('apk_zip_bomb', 'The entries overlap: together they are larger than the file')
  if (unpacked > limits.maxTotalBytes)
    throw new ApkError('apk_zip_bomb', `It unpacks to more than ${limits.maxTotalBytes} bytes`)
  if (unpacked > RATIO_FREE_BYTES && unpacked / sizeBytes > limits.maxRatio)
    throw new ApkError('apk_zip_bomb', `It unpacks to more than ${limits.maxRatio} times its size`)
}

function tooMany(count: number, limits: ApkLimits): ApkError {
  return new ApkError('apk_zip_bomb', `It has ${count} entries, ${limits.maxEntries} are allowed`)
}

function tooBig(name: string, bytes: number, maxBytes: number): ApkError {
  return new ApkError('apk_zip_bomb', `${name} unpacks to ${bytes} bytes, ${maxBytes} are allowed`)
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
