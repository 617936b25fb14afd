/* Terminology:
 * - phone host: the process that keeps many simulated phones; to the `simulated` provider what the Docker Engine is to `redroid`
 * - phone: one simulated Android device: a directory on disk, an adb port, a state
 * - Android system: what runs inside a started phone: properties, packages, files, processes, the screen
 * - adbd: the adb daemon of one phone; it speaks the wire protocol and hands work to the Android system
 */
import type { Readable, Writable } from 'node:stream'

/** The standard streams of one command that runs inside a phone. */
export interface ShellIo {
  readonly stdin: Readable
  readonly stdout: Writable
  readonly stderr: Writable
  /** True when the client asked for a terminal (`adb shell` without a command, or `-t`): echo and a prompt are expected. */
  readonly pty: boolean
  /** Fires when the client has gone or the phone shuts down; the command must end soon after. */
  readonly signal: AbortSignal
}

/** What `lstat`/`stat` over the adb sync protocol needs. `mode` holds the file type bits (S_IFDIR, S_IFREG, S_IFLNK) too. */
export interface PhoneStat {
  readonly mode: number
  /** Bytes. */
  readonly size: number
  /** Seconds since the epoch. */
  readonly mtime: number
}

/** A directory entry as the adb sync protocol lists it. */
export interface PhoneEntry extends PhoneStat {
  readonly name: string
}

/**
 * The files of one phone, addressed by Android's absolute paths (`/sdcard/Download/a.bin`).
 * `/data` and `/sdcard` (a link to `/data/media/0`) live in the phone's directory on disk; the rest is a small
 * read-only tree. No path may leave the phone's directory: links and `..` are resolved inside it.
 * Errors are thrown as `PhoneFsError`.
 */
export interface PhoneFs {
  /** Undefined when nothing is there. Does not follow a link at the end. */
  lstat(path: string): Promise<PhoneStat | undefined>
  /** Undefined when nothing is there. Follows links. */
  stat(path: string): Promise<PhoneStat | undefined>
  list(path: string): Promise<PhoneEntry[]>
  read(path: string): Promise<Readable>
  /**
   * Creates parent directories. The file appears under its name only when the stream has ended well.
   * `options.mtime` may be set until the stream ends: adb tells it after the last byte.
   */
  write(path: string, options: { mode: number; mtime?: number }): Promise<Writable>
  remove(path: string): Promise<void>
  mkdir(path: string): Promise<void>
}

/** A file error with Android's own words, such as `No such file or directory`. */
export class PhoneFsError extends Error {
  readonly code: 'ENOENT' | 'EACCES' | 'EISDIR' | 'ENOTDIR' | 'EROFS' | 'ENOSPC' | 'EINVAL' | 'ENOTEMPTY'
  constructor(code: PhoneFsError['code'], message: string) {
    super(message)
    this.name = 'PhoneFsError'
    this.code = code
  }
}

/** The running Android of one phone. Created when the phone starts, closed when it stops; what must last is on disk. */
export interface AndroidSystem {
  readonly fs: PhoneFs
  /** A system property, empty when unset; the adb banner is made of `ro.product.*`. */
  getProp(name: string): string
  /**
   * Boots: takes the time that the profile says, sets `sys.boot_completed` to 1, starts the launcher.
   * Resolves when booted; rejects with the signal's reason when aborted.
   */
  boot(signal: AbortSignal): Promise<void>
  /**
   * Runs one command line as `adb shell <line>` hands it over (quotes, pipes, `;`, `&&`, `||`, redirections as far as
   * Android's own tests and tools use them). An empty line is an interactive shell that reads its commands from stdin.
   * Resolves with the exit code; never rejects for what a user typed.
   */
  run(commandLine: string, io: ShellIo): Promise<number>
  /** What the screen shows now, as a PNG of the phone's resolution. */
  screencap(): Promise<Buffer>
  /** Persists what must last and frees the rest. Idempotent. */
  close(): Promise<void>
}

/** What a phone is made of; decided at creation and kept in its `phone.json`. */
export interface PhoneProfile {
  readonly id: string
  readonly name: string
  /** Pixels. */
  readonly width: number
  readonly height: number
  readonly dpi: number
  /** Such as "11"; gives `ro.build.version.release` and the SDK level. */
  readonly androidVersion: string
  readonly model: string
  /** Whole cores, for `/proc/cpuinfo`; MB, for `/proc/meminfo`; MB of /data. */
  readonly cpuCores: number
  readonly memoryMb: number
  readonly storageMb: number
  /** From start to `sys.boot_completed=1`. */
  readonly bootMs: number
}

/** Opens the Android of a phone over its directory (`<dir>/data` holds /data). Made by `android/system.ts`. */
export type OpenAndroid = (options: {
  profile: PhoneProfile
  dir: string
  /**
   * The power menu: `reboot`, `reboot -p`, `svc power shutdown`; and the kernel's own end, `echo c > /proc/sysrq-trigger`,
   * which is `panic`. The host carries it out.
   */
  power: (action: 'reboot' | 'shutdown' | 'panic') => void
  /** Time for the clock on the launcher, log lines and file times. */
  now: () => Date
}) => Promise<AndroidSystem>
