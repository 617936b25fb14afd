import type { PhoneProfile } from './android.ts'
import type { PhoneFiles } from './files/phone-files.ts'
import type { InstallSessions } from './packages/install-session.ts'
import type { PackageStore } from './packages/package-store.ts'
import type { Screen } from './screen/screen.ts'
import type { BatteryState } from './state/battery.ts'
import type { LogBuffer } from './state/log-buffer.ts'
import type { ProcessTable } from './state/processes.ts'
import type { Properties } from './state/properties.ts'
import type { Settings } from './state/settings.ts'

/** The parts of a running phone that commands read and change. */
export interface Internals {
  readonly profile: PhoneProfile
  readonly now: () => Date
  readonly startedAt: Date
  readonly power: (action: 'reboot' | 'shutdown' | 'panic') => void
  readonly files: PhoneFiles
  /** The host's directory for files on their way in. */
  readonly stagingDir: string
  readonly properties: Properties
  readonly settings: Settings
  readonly log: LogBuffer
  readonly processes: ProcessTable
  readonly packages: PackageStore
  readonly sessions: InstallSessions
  readonly screen: Screen
  battery: BatteryState
  /** `wm size` and `wm density` overrides. */
  display: { size?: { width: number; height: number }; density?: number }
}
