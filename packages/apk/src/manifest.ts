import { malformed } from './apk-error.ts'
import { childrenOf, type XmlAttribute, type XmlElement } from './binary-xml.ts'
import { type Value, ValueType } from './chunk.ts'
import type { ResourceTable } from './resources.ts'

/** Attribute ids of `android.R.attr`. Names alone do not do: some shrinkers blank them. */
export const Attr = {
  label: 0x01010001,
  icon: 0x01010002,
  name: 0x01010003,
  src: 0x01010119,
  drawable: 0x01010199,
  minSdkVersion: 0x0101020c,
  versionCode: 0x0101021b,
  versionName: 0x0101021c,
  targetSdkVersion: 0x01010270,
  roundIcon: 0x0101052c,
  versionCodeMajor: 0x01010576,
} as const

/** What the manifest says; `label` is resolved, icons are still values. */
export interface Manifest {
  readonly packageName: string
  readonly versionCode: number
  readonly versionName: string
  readonly label: string
  readonly icons: readonly Value[]
  readonly permissions: readonly string[]
  readonly minSdk: number
  readonly targetSdk: number
  readonly activities: readonly string[]
  readonly launchableActivity: string | undefined
}

/** AOSP PackageParser's rule for names; a package's name becomes a directory's, so nothing else may pass. */
const PACKAGE_NAME = /^[a-zA-Z][a-zA-Z0-9_]*(\.[a-zA-Z][a-zA-Z0-9_]*)+$/
const MAX_NAME = 223
const MAX_TEXT = 512
const MAX_LIST = 4096

/** Reads the facts out of a parsed `AndroidManifest.xml`; throws `apk_malformed` when it names no package. */
export function readManifest(root: XmlElement, table: ResourceTable | undefined): Manifest {
  const manifest = childrenOf(root, 'manifest')[0]
  if (manifest === undefined) throw malformed('AndroidManifest.xml has no <manifest>')
  const packageName = textOf(find(manifest, 'package'), table) ?? ''
  if (packageName.length > MAX_NAME || !PACKAGE_NAME.test(packageName))
    throw malformed(`AndroidManifest.xml names no valid package: ${JSON.stringify(packageName.slice(0, 80))}`)
  const application = childrenOf(manifest, 'application')[0]
  const activities = application === undefined ? [] : childrenOf(application, 'activity', 'activity-alias')
  const launchable = activities.find(isLaunchable)
  const minSdk = sdkOf(manifest, Attr.minSdkVersion, table) ?? 1
  return {
    packageName,
    versionCode: versionCode(manifest, table),
    versionName: textOf(find(manifest, Attr.versionName), table) ?? '',
    label: labelOf(application, launchable, table) ?? packageName,
    icons: iconsOf(application, launchable),
    permissions: permissionsOf(manifest, table),
    minSdk,
    targetSdk: sdkOf(manifest, Attr.targetSdkVersion, table) ?? minSdk,
    activities: activities.slice(0, MAX_LIST).flatMap((each) => className(each, packageName, table) ?? []),
    launchableActivity: launchable && className(launchable, packageName, table),
  }
}

/** An attribute by its resource id, or by name for those without one (`package`). */
export function find(element: XmlElement, key: number | string): XmlAttribute | undefined {
  return element.attributes.find((each) => (typeof key === 'number' ? each.id === key : each.name === key))
}

/** The text of an attribute: literal, or through the resource table in the default language, then English. */
function textOf(attribute: XmlAttribute | undefined, table: ResourceTable | undefined): string | undefined {
  if (attribute === undefined) return undefined
  if (attribute.text !== undefined) return attribute.text.slice(0, MAX_TEXT)
  const { value } = attribute
  if (value.type === ValueType.intDec || value.type === ValueType.intHex) return String(value.data)
  if (value.type !== ValueType.reference || table === undefined) return undefined
  const found = table.resolve(value.data)
  const best =
    found.find((each) => each.language === '') ?? found.find((each) => each.language === 'en') ?? found[0]
  return best && table.text(best.value)?.slice(0, MAX_TEXT)
}

function numberOf(attribute: XmlAttribute | undefined, table: ResourceTable | undefined): number | undefined {
  if (attribute === undefined) return undefined
  const { type, data } = attribute.value
  if (type === ValueType.intDec || type === ValueType.intHex) return data
  if (type === ValueType.reference && table !== undefined) return table.resolve(data)[0]?.value.data
  const text = textOf(attribute, table)
  return text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined
}

function versionCode(manifest: XmlElement, table: ResourceTable | undefined): number {
  const major = numberOf(find(manifest, Attr.versionCodeMajor), table) ?? 0
  const minor = numberOf(find(manifest, Attr.versionCode), table) ?? 0
  // 21 bits above 32 keep the sum exact in a double; no store accepts more than 2,100,000,000 anyway.
  return (major & 0x1fffff) * 2 ** 32 + minor
}

function sdkOf(manifest: XmlElement, id: number, table: ResourceTable | undefined): number | undefined {
  const uses = childrenOf(manifest, 'uses-sdk')[0]
  return uses && numberOf(find(uses, id), table)
}

function isLaunchable(activity: XmlElement): boolean {
  return childrenOf(activity, 'intent-filter').some(
    (filter) =>
      names(filter, 'action').includes('android.intent.action.MAIN') &&
      names(filter, 'category').some((name) =>
        /^android\.intent\.category\.(LEANBACK_)?LAUNCHER$/.test(name),
      ),
  )
}

function names(element: XmlElement, child: string): string[] {
  return childrenOf(element, child).map((each) => find(each, Attr.name)?.text ?? '')
}

function className(
  element: XmlElement,
  packageName: string,
  table: ResourceTable | undefined,
): string | undefined {
  const name = textOf(find(element, Attr.name), table)
  if (name === undefined || name === '') return undefined
  if (name.startsWith('.')) return packageName + name
  return name.includes('.') ? name : `${packageName}.${name}`
}

function labelOf(
  application: XmlElement | undefined,
  launchable: XmlElement | undefined,
  table: ResourceTable | undefined,
): string | undefined {
  for (const element of [application, launchable]) {
    const label = element && textOf(find(element, Attr.label), table)?.trim()
    if (label) return label
  }
  return undefined
}

function iconsOf(application: XmlElement | undefined, launchable: XmlElement | undefined): Value[] {
  return [application, launchable].flatMap((element) =>
    element === undefined ? [] : [Attr.icon, Attr.roundIcon].flatMap((id) => find(element, id)?.value ?? []),
  )
}

function permissionsOf(manifest: XmlElement, table: ResourceTable | undefined): string[] {
  const uses = childrenOf(manifest, 'uses-permission', 'uses-permission-sdk-23').slice(0, MAX_LIST)
  return [...new Set(uses.flatMap((each) => textOf(find(each, Attr.name), table) ?? []))]
}
