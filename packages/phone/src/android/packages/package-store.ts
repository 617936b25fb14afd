import { createHash } from 'node:crypto'
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ApkError, type ApkInfo, parseApk } from '@cloudphone/apk/apk'
import { z } from 'zod'
import type { Space } from '../files/space.ts'
import { JsonFile, readJson } from '../state/json-file.ts'
import { ABIS } from '../state/properties.ts'
import { SYSTEM_APPS } from './system-apps.ts'

const Record = z.object({
  packageName: z.string(),
  versionCode: z.number(),
  versionName: z.string(),
  label: z.string(),
  uid: z.number(),
  /** Directory below /data/app. */
  codeDir: z.string(),
  sizeBytes: z.number(),
  iconFile: z.string().optional(),
  permissions: z.array(z.string()),
  granted: z.array(z.string()),
  activities: z.array(z.string()),
  launchableActivity: z.string().optional(),
  minSdk: z.number(),
  targetSdk: z.number(),
  abis: z.array(z.string()),
  installer: z.string().optional(),
  enabled: z.boolean(),
  /** ISO times. */
  firstInstallTime: z.string(),
  lastUpdateTime: z.string(),
})
type PackageRecord = z.infer<typeof Record>
const Saved = z.object({ nextUid: z.number(), packages: z.array(Record) })

export interface PackageEntry extends Omit<PackageRecord, 'codeDir' | 'iconFile'> {
  readonly system: boolean
  /** Android's path of the APK. */
  readonly apkPath: string
  /** The host's path of the icon, when the APK had a raster. */
  readonly iconPath: string | undefined
}

/** Why an installation failed, in PackageManager's words: `Failure [code: detail]`. */
export class InstallError extends Error {
  override readonly name = 'InstallError'
  readonly code: string
  constructor(code: string, detail = '') {
    super(detail === '' ? code : `${code}: ${detail}`)
    this.code = code
  }
}

export interface InstallFlags {
  /** `-R` forbids it; since Android 9 replacing is the default and `-r` says nothing new. */
  readonly replace: 'allowed' | 'forbidden'
  readonly downgrade: 'allowed' | 'forbidden'
  readonly grantAll: boolean
  readonly installer?: string
}

/** Who wants to know what changes. */
export type PackageListener = (event: {
  readonly kind: 'added' | 'replaced' | 'removed'
  readonly packageName: string
}) => void

const FIRST_APP_UID = 10_100
/** Debuggable or not, Android asks the user for these; all others are granted at installation. */
const RUNTIME_PERMISSION =
  /\.(CAMERA|RECORD_AUDIO|ACCESS_(FINE|COARSE|BACKGROUND)_LOCATION|(READ|WRITE)_(CONTACTS|CALENDAR|CALL_LOG|EXTERNAL_STORAGE)|READ_(SMS|PHONE_STATE|PHONE_NUMBERS|MEDIA_\w+)|(SEND|RECEIVE)_SMS|CALL_PHONE|GET_ACCOUNTS|BODY_SENSORS|POST_NOTIFICATIONS|BLUETOOTH_(CONNECT|SCAN|ADVERTISE)|ACTIVITY_RECOGNITION)$/

export interface PackageStoreOptions {
  /** The host's directory of /data. */
  readonly dataDir: string
  readonly stagingDir: string
  readonly space: Space
  readonly sdk: number
  readonly now: () => Date
}

/** Installed packages: the system's own, and those on /data with their APKs. What it says is on disk before it is said. */
export class PackageStore {
  readonly #options: PackageStoreOptions
  readonly #packages: Map<string, PackageRecord>
  readonly #file: JsonFile
  readonly #listeners = new Set<PackageListener>()
  #nextUid: number
  /** Installations and removals happen one after another, as in PackageManager. */
  #queue: Promise<unknown> = Promise.resolve()

  constructor(options: PackageStoreOptions, saved: z.infer<typeof Saved>) {
    this.#options = options
    this.#packages = new Map(saved.packages.map((each) => [each.packageName, each]))
    this.#nextUid = saved.nextUid
    this.#file = new JsonFile(packagesFile(options.dataDir), () => ({
      nextUid: this.#nextUid,
      packages: [...this.#packages.values()],
    }))
  }

  onChange(listener: PackageListener): void {
    this.#listeners.add(listener)
  }

  list(): PackageEntry[] {
    return [...SYSTEM_ENTRIES, ...[...this.#packages.values()].map((each) => this.#entry(each))]
  }

  get(packageName: string): PackageEntry | undefined {
    const own = this.#packages.get(packageName)
    if (own !== undefined) return this.#entry(own)
    return SYSTEM_ENTRIES.find((each) => each.packageName === packageName)
  }

  /** Installs the APK at a host path, which it moves away on success. Throws `InstallError`. */
  install(apkPath: string, flags: InstallFlags): Promise<PackageEntry> {
    return this.#serially(() => this.#install(apkPath, flags))
  }

  /** False when there is no such package on /data. */
  uninstall(packageName: string): Promise<boolean> {
    return this.#serially(async () => {
      const record = this.#packages.get(packageName)
      if (record === undefined) return false
      this.#packages.delete(packageName)
      await this.#file.save()
      await this.#removeCode(record)
      this.#tell('removed', packageName)
      return true
    })
  }

  /** Changes what the user may change of an installed package; false when there is none on /data. */
  async update(
    packageName: string,
    change: Partial<Pick<PackageRecord, 'granted' | 'enabled'>>,
  ): Promise<boolean> {
    const record = this.#packages.get(packageName)
    if (record === undefined) return false
    this.#packages.set(packageName, { ...record, ...change })
    await this.#file.save()
    return true
  }

  async settled(): Promise<void> {
    await this.#queue.catch(() => undefined)
    await this.#file.settled()
  }

  #serially<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.catch(() => undefined).then(task)
    this.#queue = result
    return result
  }

  async #install(apkPath: string, flags: InstallFlags): Promise<PackageEntry> {
    const info = await this.#parse(apkPath)
    const old = this.#packages.get(info.packageName)
    this.#check(info, old, flags)
    const now = this.#options.now().toISOString()
    const codeDir = codeDirOf(info.packageName, `${now} ${old?.codeDir ?? ''}`)
    const record = this.#record(info, { old, codeDir, now, flags })
    await this.#place(apkPath, record, info)
    this.#packages.set(info.packageName, record)
    try {
      await this.#file.save()
    } catch (error) {
      if (old === undefined) this.#packages.delete(info.packageName)
      else this.#packages.set(info.packageName, old)
      await this.#removeCode(record)
      throw error
    }
    if (old !== undefined && old.codeDir !== codeDir) await this.#removeCode(old)
    this.#tell(old === undefined ? 'added' : 'replaced', info.packageName)
    return this.#entry(record)
  }

  async #parse(apkPath: string): Promise<ApkInfo> {
    try {
      return await parseApk(apkPath)
    } catch (error) {
      if (!(error instanceof ApkError)) throw error
      const code = {
        apk_empty: 'INSTALL_PARSE_FAILED_NOT_APK',
        apk_not_zip: 'INSTALL_PARSE_FAILED_NOT_APK',
        apk_no_manifest: 'INSTALL_PARSE_FAILED_BAD_MANIFEST',
        apk_malformed: 'INSTALL_PARSE_FAILED_UNEXPECTED_EXCEPTION',
        apk_zip_bomb: 'INSTALL_FAILED_INVALID_APK',
        apk_too_large: 'INSTALL_FAILED_INVALID_APK',
      }[error.code]
      throw new InstallError(code, `Failed to parse base.apk: ${error.message}`)
    }
  }

  #check(info: ApkInfo, old: PackageRecord | undefined, flags: InstallFlags): void {
    if (SYSTEM_ENTRIES.some((each) => each.packageName === info.packageName))
      throw new InstallError(
        'INSTALL_FAILED_UPDATE_INCOMPATIBLE',
        `Package ${info.packageName} signatures do not match previously installed version; ignoring!`,
      )
    if (info.minSdk > this.#options.sdk)
      throw new InstallError(
        'INSTALL_FAILED_OLDER_SDK',
        `Failed parse during installPackageLI: Requires newer sdk version #${info.minSdk} (current version is #${this.#options.sdk})`,
      )
    if (info.abis.length > 0 && !info.abis.some((abi) => ABIS.includes(abi)))
      throw new InstallError(
        'INSTALL_FAILED_NO_MATCHING_ABIS',
        'Failed to extract native libraries, res=-113',
      )
    if (old === undefined) return
    if (flags.replace === 'forbidden')
      throw new InstallError(
        'INSTALL_FAILED_ALREADY_EXISTS',
        `Attempt to re-install ${info.packageName} without first uninstalling.`,
      )
    if (info.versionCode < old.versionCode && flags.downgrade === 'forbidden')
      throw new InstallError(
        'INSTALL_FAILED_VERSION_DOWNGRADE',
        `Downgrade detected: Update version code ${info.versionCode} is older than current ${old.versionCode}`,
      )
  }

  #record(
    info: ApkInfo,
    how: { old: PackageRecord | undefined; codeDir: string; now: string; flags: InstallFlags },
  ): PackageRecord {
    const { old, codeDir, now, flags } = how
    const uid = old?.uid ?? this.#nextUid++
    const granted = info.permissions.filter(
      (each) => flags.grantAll || !RUNTIME_PERMISSION.test(each) || old?.granted.includes(each),
    )
    const { installer = old?.installer } = flags
    const { icon } = info
    return {
      packageName: info.packageName,
      versionCode: info.versionCode,
      versionName: info.versionName,
      label: info.label,
      uid,
      codeDir,
      sizeBytes: info.sizeBytes,
      ...(icon && { iconFile: `icon.${icon.mediaType.slice(6)}` }),
      permissions: [...info.permissions],
      granted,
      activities: [...info.activities],
      ...(info.launchableActivity !== undefined && { launchableActivity: info.launchableActivity }),
      ...(installer !== undefined && { installer }),
      minSdk: info.minSdk,
      targetSdk: info.targetSdk,
      abis: [...info.abis],
      enabled: true,
      firstInstallTime: old?.firstInstallTime ?? now,
      lastUpdateTime: now,
    }
  }

  async #place(apkPath: string, record: PackageRecord, info: ApkInfo): Promise<void> {
    const { dataDir, stagingDir } = this.#options
    // Built aside and renamed whole: a crash leaves no half-filled directory below /data/app.
    const aside = join(stagingDir, `app-${record.codeDir.replaceAll('/', '-')}`)
    await rm(aside, { recursive: true, force: true })
    await mkdir(aside, { recursive: true })
    await rename(apkPath, join(aside, 'base.apk'))
    if (info.icon !== undefined && record.iconFile !== undefined)
      await writeFile(join(aside, record.iconFile), info.icon.data)
    const target = join(dataDir, 'app', record.codeDir)
    await mkdir(dirname(target), { recursive: true })
    await rm(target, { recursive: true, force: true })
    await rename(aside, target)
  }

  async #removeCode(record: PackageRecord): Promise<void> {
    const dir = join(this.#options.dataDir, 'app', record.codeDir)
    const size = await stat(join(dir, 'base.apk')).then(
      ({ size }) => size,
      () => 0,
    )
    await rm(dir, { recursive: true, force: true })
    await this.#options.space.count()
    this.#options.space.give(size)
  }

  #entry(record: PackageRecord): PackageEntry {
    const { codeDir, iconFile, ...rest } = record
    return {
      ...rest,
      system: false,
      apkPath: `/data/app/${codeDir}/base.apk`,
      iconPath: iconFile === undefined ? undefined : join(this.#options.dataDir, 'app', codeDir, iconFile),
    }
  }

  #tell(kind: 'added' | 'replaced' | 'removed', packageName: string): void {
    for (const listener of this.#listeners) listener({ kind, packageName })
  }
}

export async function openPackages(options: PackageStoreOptions): Promise<PackageStore> {
  const saved = await readJson(packagesFile(options.dataDir))
  return new PackageStore(
    options,
    saved === undefined ? { nextUid: FIRST_APP_UID, packages: [] } : Saved.parse(saved),
  )
}

function packagesFile(dataDir: string): string {
  return join(dataDir, 'system', 'packages.json')
}

/** Android's layout since 11: a directory that nobody can guess from the name alone. */
function codeDirOf(packageName: string, salt: string): string {
  const token = createHash('sha256').update(`${packageName} ${salt}`).digest('base64url')
  return `${packageName}-${token.slice(0, 22)}==`
}

const SYSTEM_ENTRIES: readonly PackageEntry[] = SYSTEM_APPS.map((app, index) => ({
  packageName: app.packageName,
  versionCode: 30,
  versionName: '11',
  label: app.label,
  uid: app.packageName === 'com.android.shell' ? 2000 : app.launchable ? 10_010 + index : 1000,
  sizeBytes: 0,
  permissions: [],
  granted: [],
  activities: [app.activity],
  ...(app.launchable && { launchableActivity: app.activity }),
  minSdk: 30,
  targetSdk: 30,
  abis: [],
  enabled: true,
  firstInstallTime: '2009-01-01T00:00:00.000Z',
  lastUpdateTime: '2009-01-01T00:00:00.000Z',
  system: true,
  apkPath: app.path,
  iconPath: undefined,
}))
