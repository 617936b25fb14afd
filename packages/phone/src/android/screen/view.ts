import type { Image } from '@napi-rs/canvas'
import type { PackageEntry } from '../packages/package-store.ts'
import type { BatteryState } from '../state/battery.ts'
import type { AppIcon, Layout } from './layout.ts'
import type { ScreenState } from './screen-model.ts'

/** Everything one picture is made of, gathered before drawing so that drawing itself waits for nothing. */
export interface View {
  readonly state: ScreenState
  readonly layout: Layout
  readonly apps: readonly AppIcon[]
  /** By package. */
  readonly packages: ReadonlyMap<string, PackageEntry>
  /** Icons of installed packages that are on the screen. */
  readonly images: ReadonlyMap<string, Image>
  readonly phone: { readonly id: string; readonly name: string }
  readonly battery: BatteryState
  /** The phone's local time, held in the UTC fields. */
  readonly now: Date
  /** Title and value of each line in Settings. */
  readonly about: readonly (readonly [string, string])[]
  /** What Files lists: the shared storage. */
  readonly files: readonly { readonly name: string; readonly detail: string; readonly isDir: boolean }[]
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const MONTHS = [
  ...['January', 'February', 'March', 'April', 'May', 'June', 'July'],
  ...['August', 'September', 'October', 'November', 'December'],
]

export function clockText(now: Date): string {
  return `${String(now.getUTCHours()).padStart(2, '0')}:${String(now.getUTCMinutes()).padStart(2, '0')}`
}

export function dateText(now: Date): string {
  return `${DAYS[now.getUTCDay()]}, ${MONTHS[now.getUTCMonth()]} ${now.getUTCDate()}`
}

export function monthText(now: Date): string {
  return `${MONTHS[now.getUTCMonth()]} ${now.getUTCFullYear()}`
}
