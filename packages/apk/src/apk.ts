import { ApkError, malformed } from './apk-error.ts'
import { type ApkLimits, type Archive, DEFAULT_LIMITS, openArchive } from './archive.ts'
import { parseBinaryXml } from './binary-xml.ts'
import { type ApkIcon, findIcon } from './icon.ts'
import { readManifest } from './manifest.ts'
import { ResourceTable } from './resources.ts'

export { ApkError } from './apk-error.ts'
export type { ApkLimits } from './archive.ts'
export type { ApkIcon } from './icon.ts'

/** What an APK says of itself. */
export interface ApkInfo {
  readonly packageName: string
  /** `versionCodeMajor` included. */
  readonly versionCode: number
  readonly versionName: string
  /** In the default language; the package's name when there is none. */
  readonly label: string
  /** Absent when the APK has only vector icons. */
  readonly icon?: ApkIcon
  readonly permissions: readonly string[]
  readonly minSdk: number
  readonly targetSdk: number
  /** Fully qualified class names. */
  readonly activities: readonly string[]
  /** The one a launcher starts; absent for packages without a face. */
  readonly launchableActivity?: string
  /** Such as `arm64-v8a`; empty when there is no native code, which runs on any. */
  readonly abis: readonly string[]
  /** Of the file. */
  readonly sizeBytes: number
}

/**
 * Describes an APK without trusting it: a path, or its bytes. Needs memory for the manifest, the resource table and
 * the icon only, whatever the file's size. Throws `ApkError`, and nothing else, for what the bytes may be;
 * file system errors of a path pass through.
 *
 * Ours because no library met "label and icon through resources.arsc, bounded, survives hostile bytes":
 * app-info-parser 1.1.6 expands the table without bounds, node-apk 1.2.1 reads the whole file into memory,
 * adbkit-apkreader 3.2.4 does not read resources.
 */
export async function parseApk(source: string | Buffer, limits: Partial<ApkLimits> = {}): Promise<ApkInfo> {
  const archive = await openArchive(source, { ...DEFAULT_LIMITS, ...limits })
  try {
    return await describe(archive)
  } catch (error) {
    // Reading past the end of a buffer is how most lies in the bytes come to light.
    if (error instanceof RangeError) throw malformed(`The APK's tables are broken: ${error.message}`, error)
    throw error
  } finally {
    archive.close()
  }
}

async function describe(archive: Archive): Promise<ApkInfo> {
  if (!archive.has('AndroidManifest.xml'))
    throw new ApkError('apk_no_manifest', 'The archive has no AndroidManifest.xml')
  const xml = parseBinaryXml(await archive.read('AndroidManifest.xml', archive.limits.maxXmlBytes))
  const table = archive.has('resources.arsc')
    ? new ResourceTable(await archive.read('resources.arsc', archive.limits.maxResourcesBytes))
    : undefined
  const { icons, launchableActivity, ...manifest } = readManifest(xml, table)
  const icon = await findIcon(icons, table, archive)
  return {
    ...manifest,
    ...(icon && { icon }),
    ...(launchableActivity !== undefined && { launchableActivity }),
    abis: archive.abis,
    sizeBytes: archive.sizeBytes,
  }
}
