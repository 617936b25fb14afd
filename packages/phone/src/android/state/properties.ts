import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { PhoneProfile } from '../android.ts'
import { JsonFile, readJson } from './json-file.ts'

/** API level by Android version (https://apilevels.com, from AOSP's build numbers). */
const SDK_LEVELS: Readonly<Record<string, number>> = {
  '8': 26,
  '8.1': 27,
  '9': 28,
  '10': 29,
  '11': 30,
  '12': 31,
  '12L': 32,
  '13': 33,
  '14': 34,
  '15': 35,
  '16': 36,
}

/** AOSP property names are at most this long since Android 8 has no limit on names; values of non-`ro.` ones are. */
const MAX_VALUE = 91
const MAX_NAME = 256
const MAX_PROPERTIES = 2048
const Persisted = z.record(z.string(), z.string())

/** Why `setprop` refuses. */
export class PropertyError extends Error {
  override readonly name = 'PropertyError'
}

/** System properties: built-in `ro.*`, volatile ones, and `persist.*` that survive a restart. */
export class Properties {
  readonly #values: Map<string, string>
  readonly #file: JsonFile

  constructor(values: Map<string, string>, path: string) {
    this.#values = values
    this.#file = new JsonFile(path, () =>
      Object.fromEntries([...this.#values].filter(([name]) => name.startsWith('persist.'))),
    )
  }

  get(name: string): string {
    return this.#values.get(name) ?? ''
  }

  /** All that are set, sorted by name. */
  list(): [string, string][] {
    return [...this.#values].sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** As init does: any name, no checks of who asks; volatile. */
  setBySystem(name: string, value: string): void {
    this.#values.set(name, value)
  }

  /** As the shell user may: `ro.*` cannot change, lengths are bounded; `persist.*` is on disk when it resolves. */
  async setByShell(name: string, value: string): Promise<void> {
    if (!/^[\w.:@-]+$/.test(name) || name.length > MAX_NAME || name.startsWith('.') || name.endsWith('.'))
      throw new PropertyError(`Failed to set property '${name}' to '${value}'.`)
    const readOnly = name.startsWith('ro.') && this.#values.has(name)
    if (readOnly || Buffer.byteLength(value) > MAX_VALUE || name.startsWith('sys.boot'))
      throw new PropertyError(`Failed to set property '${name}' to '${value}'.\nSee dmesg for error reason.`)
    if (!this.#values.has(name) && this.#values.size >= MAX_PROPERTIES)
      throw new PropertyError(`Failed to set property '${name}' to '${value}'.`)
    this.#values.set(name, value)
    if (name.startsWith('persist.')) await this.#file.save()
  }

  settled(): Promise<void> {
    return this.#file.settled()
  }
}

/** The properties of a phone that has just been switched on. */
export async function openProperties(profile: PhoneProfile, path: string): Promise<Properties> {
  const persisted = Persisted.parse((await readJson(path)) ?? {})
  const values = new Map(Object.entries(builtIn(profile)))
  values.set('persist.sys.timezone', 'Etc/UTC')
  values.set('persist.sys.locale', 'en-US')
  values.set('persist.sys.usb.config', 'adb')
  for (const [name, value] of Object.entries(persisted)) values.set(name, value)
  return new Properties(values, path)
}

/** The API level of the profile's Android version; an unknown version is an error of configuration. */
export function sdkLevel(androidVersion: string): number {
  const level = SDK_LEVELS[androidVersion]
  if (level === undefined)
    throw new Error(
      `Android version "${androidVersion}" is unknown; known: ${Object.keys(SDK_LEVELS).join(', ')}`,
    )
  return level
}

function builtIn(profile: PhoneProfile): Record<string, string> {
  const sdk = String(sdkLevel(profile.androidVersion))
  const hash = createHash('sha256').update(profile.id).digest('hex')
  const serial = `CP${hash.slice(0, 14).toUpperCase()}`
  const model = profile.model
  const device = 'generic_x86'
  const release = profile.androidVersion
  const build = `CP${sdk}A.240101.001`
  const incremental = '1'
  const fingerprint = `cloudphone/${device}/${device}:${release}/${build}/${incremental}:user/release-keys`
  return {
    'ro.build.version.release': release,
    'ro.build.version.sdk': sdk,
    'ro.build.version.codename': 'REL',
    'ro.build.version.incremental': incremental,
    'ro.build.version.security_patch': '2024-01-05',
    'ro.build.id': build,
    'ro.build.display.id': `${build} user ${incremental}`,
    'ro.build.type': 'user',
    'ro.build.tags': 'release-keys',
    'ro.build.characteristics': 'default',
    'ro.build.product': device,
    'ro.build.description': `${device}-user ${release} ${build} ${incremental} release-keys`,
    'ro.build.fingerprint': fingerprint,
    'ro.product.brand': 'Cloudphone',
    'ro.product.manufacturer': 'Cloudphone',
    'ro.product.model': model,
    'ro.product.name': device,
    'ro.product.device': device,
    'ro.product.board': device,
    'ro.product.locale': 'en-US',
    'ro.product.cpu.abi': 'x86_64',
    'ro.product.cpu.abilist': ABIS.join(','),
    'ro.product.cpu.abilist64': ABIS.filter((abi) => abi.includes('64')).join(','),
    'ro.product.cpu.abilist32': ABIS.filter((abi) => !abi.includes('64')).join(','),
    'ro.hardware': 'cloudphone',
    'ro.boot.serialno': serial,
    'ro.serialno': serial,
    'ro.boot.hardware': 'cloudphone',
    'ro.sf.lcd_density': String(profile.dpi),
    'ro.secure': '1',
    'ro.debuggable': '0',
    'ro.adb.secure': '1',
    'ro.zygote': 'zygote64_32',
    'ro.kernel.qemu': '0',
    'ro.config.low_ram': profile.memoryMb <= 1024 ? 'true' : 'false',
    'dalvik.vm.heapsize': '512m',
    'net.hostname': `android-${hash.slice(0, 16)}`,
    'gsm.sim.state': 'ABSENT',
    'gsm.network.type': 'Unknown',
    'sys.usb.config': 'adb',
    'sys.usb.state': 'adb',
    'init.svc.adbd': 'running',
    'init.svc.bootanim': 'running',
  }
}

/** The instruction sets whose APKs the phone accepts, the native one first. */
export const ABIS: readonly string[] = ['x86_64', 'x86', 'arm64-v8a', 'armeabi-v7a', 'armeabi']
