import { createHash } from 'node:crypto'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { AndroidSystem, OpenAndroid, ShellIo } from './android.ts'
import { androidTree } from './files/android-tree.ts'
import { PhoneFiles } from './files/phone-files.ts'
import { Space } from './files/space.ts'
import { gatherView } from './gather-view.ts'
import type { Internals } from './internals.ts'
import { InstallSessions } from './packages/install-session.ts'
import { openPackages, type PackageStore } from './packages/package-store.ts'
import { LAUNCHER, SYSTEM_APPS, SYSTEM_UI } from './packages/system-apps.ts'
import { Screen } from './screen/screen.ts'
import { COMMANDS } from './shell/commands/table.ts'
import { runInteractive, runScript } from './shell/session.ts'
import { Shell } from './shell/shell.ts'
import { FULL_BATTERY } from './state/battery.ts'
import { LogBuffer } from './state/log-buffer.ts'
import { ProcessTable } from './state/processes.ts'
import { openProperties, sdkLevel } from './state/properties.ts'
import { openSettings } from './state/settings.ts'

type Options = Parameters<OpenAndroid>[0]

/** Opens the Android of a phone. Cheap: reads three small files; nothing is drawn, no timer runs, until someone asks. */
export const openAndroid: OpenAndroid = async (options) => {
  const internals = await openInternals(options)
  return new System(internals)
}

/** Wires the parts of one phone over its directory. */
async function openInternals(options: Options): Promise<Internals> {
  const { profile, dir, now } = options
  const dataDir = join(dir, 'data')
  const stagingDir = join(dir, 'staging')
  await prepare(dataDir, stagingDir)
  const systemDir = join(dataDir, 'system')
  const space = new Space(dataDir, profile.storageMb * 1024 * 1024)
  const properties = await openProperties(profile, join(systemDir, 'persistent_properties.json'))
  const androidId = createHash('sha256').update(`android_id ${profile.id}`).digest('hex').slice(0, 16)
  const settings = await openSettings(join(systemDir, 'settings.json'), androidId)
  const sdk = sdkLevel(profile.androidVersion)
  const packages = await openPackages({ dataDir, stagingDir, space, sdk, now })
  const startedAt = now()
  const commands = Object.keys(COMMANDS)
  const systemPackages = SYSTEM_APPS
  const files = new PhoneFiles({
    root: androidTree({
      ...{ profile, properties, commands, systemPackages, now, startedAt },
      panic: () => options.power('panic'),
    }),
    dataDir,
    stagingDir,
    space,
    now,
  })
  const internals: Internals = {
    profile,
    now,
    startedAt,
    power: options.power,
    files,
    stagingDir,
    properties,
    settings,
    log: new LogBuffer(now),
    processes: new ProcessTable(),
    packages,
    sessions: new InstallSessions({ stagingDir, space, packages }),
    screen: new Screen({ packages, size: () => sizeOf(internals), rest: () => gatherView(internals) }),
    battery: FULL_BATTERY,
    display: {},
  }
  followPackages(internals, packages)
  return internals
}

async function prepare(dataDir: string, stagingDir: string): Promise<void> {
  // What a crash left half-written is worth nothing.
  await rm(stagingDir, { recursive: true, force: true })
  await mkdir(stagingDir, { recursive: true, mode: 0o700 })
  for (const name of ['app', 'data', 'system', 'local/tmp', ...SHARED.map((each) => `media/0/${each}`)])
    await mkdir(join(dataDir, name), { recursive: true })
}

const SHARED = ['DCIM', 'Documents', 'Download', 'Movies', 'Music', 'Pictures']

/** The screen's size after `wm size`, and the zoom that `wm density` makes. */
function sizeOf({ profile, display }: Internals): { width: number; height: number; zoom: number } {
  const { width, height } = display.size ?? profile
  return { width, height, zoom: (display.density ?? profile.dpi) / profile.dpi }
}

function followPackages(internals: Internals, packages: PackageStore): void {
  packages.onChange(({ kind, packageName }) => {
    const pid = internals.processes.find('system_server')?.pid ?? 1
    const action =
      kind === 'removed' ? 'PACKAGE_REMOVED' : kind === 'added' ? 'PACKAGE_ADDED' : 'PACKAGE_REPLACED'
    internals.log.write({ priority: 'I', tag: 'PackageManager', message: `${action} ${packageName}`, pid })
    if (kind === 'added') return
    internals.processes.stop(packageName)
    internals.screen.apply({ kind: 'close', packageName })
  })
}

class System implements AndroidSystem {
  readonly #internals: Internals
  #closed: Promise<void> | undefined

  constructor(internals: Internals) {
    this.#internals = internals
  }

  get fs() {
    return this.#internals.files
  }

  getProp(name: string): string {
    return this.#internals.properties.get(name)
  }

  async boot(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { profile, properties, processes, log, screen } = this.#internals
    log.write({ priority: 'I', tag: 'init', message: 'init first stage started!', pid: 1 })
    await wait(profile.bootMs, signal)
    const server = processes.start({ name: 'system_server', user: 'system', residentKb: 182_000 })
    processes.start({ name: SYSTEM_UI, user: 'u0_a10', residentKb: 94_000 })
    processes.start({ name: LAUNCHER, user: 'u0_a17', residentKb: 71_000 })
    log.write({
      priority: 'I',
      tag: 'SystemServer',
      message: 'Entered the Android system server!',
      pid: server.pid,
    })
    screen.apply({ kind: 'booted' })
    for (const [name, value] of BOOTED) properties.setBySystem(name, value)
    log.write({
      priority: 'I',
      tag: 'ActivityManager',
      message: 'Posting BOOT_COMPLETED broadcast',
      pid: server.pid,
    })
  }

  async run(commandLine: string, io: ShellIo): Promise<number> {
    const shell = new Shell({ phone: this.#internals, commands: COMMANDS, signal: io.signal })
    // Wakes a command that waits for input; the signal alone would not reach it there.
    const wake = () => io.stdin.destroy()
    io.signal.addEventListener('abort', wake, { once: true })
    try {
      if (commandLine.trim() !== '') return await shell.run(commandLine, io)
      return io.pty ? await runInteractive(shell, io) : await runScript(shell, io)
    } catch (error) {
      // Whoever left takes the reason with them; 130 is what a shell says after a signal.
      if (io.signal.aborted) return 130
      const message = error instanceof Error ? error.message : String(error)
      this.#internals.log.write({
        priority: 'E',
        tag: 'sh',
        message: `${commandLine.slice(0, 200)}: ${message}`,
        pid: 1,
      })
      if (!io.stderr.destroyed) io.stderr.write(`/system/bin/sh: ${message}\n`)
      return 1
    } finally {
      io.signal.removeEventListener('abort', wake)
    }
  }

  async screencap(): Promise<Buffer> {
    return await this.#internals.screen.png()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const { sessions, packages, properties, settings, stagingDir } = this.#internals
    await sessions.close()
    await packages.settled()
    await properties.settled()
    await settings.settled()
    await rm(stagingDir, { recursive: true, force: true })
  }
}

const BOOTED = [
  ['init.svc.bootanim', 'stopped'],
  ['service.bootanim.exit', '1'],
  ['dev.bootcomplete', '1'],
  ['sys.boot_completed', '1'],
] as const

async function wait(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal })
  } catch (error) {
    signal.throwIfAborted()
    throw error
  }
}
