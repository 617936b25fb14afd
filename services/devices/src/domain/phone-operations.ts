import {
  AdbError,
  type AdbSession,
  type PhoneEntry,
  type ShellResult,
} from '@cloudphone/adb-client/adb-client'
import type { Caller } from '@cloudphone/contracts/access'
import type { PhoneApp, PhoneInput } from '@cloudphone/contracts/api/device-operations-api'
import type { DeviceId } from '@cloudphone/contracts/id'
import type { AuditVerb } from '@cloudphone/contracts/route'
import type { DeviceRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'
import type { Deps } from './deps.ts'
import { visibleDevice } from './lifecycle-service.ts'
import { phoneProblem, visitPhone } from './phone-door.ts'

const TIMEOUT_MS = 15_000
/** A PNG of 3840 x 3840 random pixels is larger; no screen looks like that. */
const SCREEN_LIMIT_BYTES = 32 * 1024 * 1024
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47])

/** One request for something on a phone. */
export interface OnPhone {
  readonly caller: Caller
  readonly deviceId: DeviceId
  /** Fires when nobody waits any more. */
  readonly signal: AbortSignal
}

/** What is asked of a phone and answered at once. Every right is checked first; every change is on record before it is made. */
export class PhoneOperations {
  readonly #deps: Deps
  readonly #keys: AdbKeyApplier

  constructor(deps: Deps, keys: AdbKeyApplier) {
    this.#deps = deps
    this.#keys = keys
  }

  /** What the phone shows now, as a PNG. @throws `device_not_running`, `phone_refused`, `phone_failed`. */
  async screenshot(asked: OnPhone): Promise<Buffer> {
    const device = await visibleDevice(this.#deps, asked.caller, asked.deviceId)
    return await this.#visit(asked, device, async (phone) => {
      const image = await phone.exec(['screencap', '-p'], { limitBytes: SCREEN_LIMIT_BYTES })
      if (!image.subarray(0, 4).equals(PNG)) throw new AdbError('command_failed', 'no PNG came')
      return image
    })
  }

  /** @throws `device_not_running`, `phone_refused` in the phone's own words, `phone_failed`. */
  async input(asked: OnPhone, input: PhoneInput): Promise<void> {
    // What is typed may be a password.
    const after = input.kind === 'text' ? { kind: input.kind, characters: input.text.length } : input
    await this.#change(asked, { verb: 'device.input', after }, async (phone) => {
      for (const argv of inputCommands(input)) succeeded(await phone.run(['input', ...argv]))
    })
  }

  /** Everything that is installed, by name. */
  async apps(asked: OnPhone): Promise<PhoneApp[]> {
    const device = await visibleDevice(this.#deps, asked.caller, asked.deviceId)
    return await this.#visit(asked, device, async (phone) => {
      const all = succeeded(await phone.run(['pm', 'list', 'packages', '--show-versioncode']))
      const added = succeeded(await phone.run(['pm', 'list', 'packages', '-3']))
      return appsOf(all, added)
    })
  }

  /** Opens or stops an app. @throws `package_not_found`, `phone_refused`, `phone_failed`. */
  async power(asked: OnPhone, packageName: string, verb: 'start' | 'stop'): Promise<void> {
    await this.#change(
      asked,
      { verb: `device.app_${verb}`, after: { packageName } },
      async (phone, device) => {
        await mustHave(phone, device, packageName)
        const argv =
          verb === 'stop'
            ? ['am', 'force-stop', packageName]
            : ['monkey', '-p', packageName, '-c', 'android.intent.category.LAUNCHER', '1']
        succeeded(await phone.run(argv))
      },
    )
  }

  /** Uninstalls an app with its data. @throws `package_not_found`, `phone_refused`, `phone_failed`. */
  async removeApp(asked: OnPhone, packageName: string): Promise<void> {
    await this.#change(
      asked,
      { verb: 'device.app_remove', after: { packageName } },
      async (phone, device) => {
        await mustHave(phone, device, packageName)
        const said = succeeded(await phone.run(['pm', 'uninstall', packageName]))
        if (!/^Success\b/m.test(said)) throw new AdbError('command_failed', said.trim())
      },
    )
  }

  /** What lies in a folder, by name. @throws `file_not_found`. */
  async files(asked: OnPhone, path: string): Promise<PhoneEntry[]> {
    const device = await visibleDevice(this.#deps, asked.caller, asked.deviceId)
    return await this.#visit(asked, device, async (phone) => {
      if ((await phone.stat(path))?.kind !== 'folder') {
        throw problems.file_not_found({ deviceId: device.id, wanted: 'folder', path })
      }
      const entries = [...(await phone.list(path))]
      return entries.sort((one, other) => (one.name < other.name ? -1 : 1))
    })
  }

  /** Checks the right, puts what will be done on record, and does it. */
  async #change(
    asked: OnPhone,
    { verb, after }: { verb: AuditVerb; after: object },
    work: (phone: AdbSession, device: DeviceRow) => Promise<void>,
  ): Promise<void> {
    const device = await visibleDevice(this.#deps, asked.caller, asked.deviceId)
    await this.#visit(asked, device, async (phone) => {
      await recordUse(this.#deps, device, { verb, after })
      await work(phone, device)
    })
  }

  /** What fails on the phone, or takes too long there, becomes a problem: see `phoneProblem`. */
  async #visit<T>(asked: OnPhone, device: DeviceRow, work: (phone: AdbSession) => Promise<T>): Promise<T> {
    const signal = AbortSignal.any([asked.signal, AbortSignal.timeout(TIMEOUT_MS)])
    try {
      return await visitPhone({ device, keys: this.#keys, signal }, work)
    } catch (error) {
      const isLate = signal.aborted && !asked.signal.aborted
      if (!isLate && !(error instanceof AdbError)) throw error
      const told = isLate ? new AdbError('closed', `it took more than ${TIMEOUT_MS / 1000} s`) : error
      throw await phoneProblem(this.#deps, device.id, told as AdbError)
    }
  }
}

/** Puts on record what is about to be done on a phone. */
export async function recordUse(
  { database, audit }: Deps,
  device: DeviceRow,
  { verb, after }: { verb: AuditVerb; after: object },
): Promise<void> {
  const { id: target, tenant_id: tenantId, allocation_id: allocationId } = device
  await database.transaction((tx) =>
    audit.add(tx, { verb, target, tenantId, after: { ...after, allocationId } }),
  )
}

/** What a command wrote. @throws AdbError in its own words when it did not succeed. */
function succeeded({ exitCode, stdout, stderr }: ShellResult): string {
  if (exitCode === 0) return stdout
  const words = [stderr, stdout].map((text) => text.trim()).find((text) => text !== '')
  throw new AdbError('command_failed', (words ?? `exit code ${exitCode}`).slice(0, 500))
}

async function mustHave(phone: AdbSession, { id: deviceId }: DeviceRow, packageName: string): Promise<void> {
  const { stdout } = await phone.run(['pm', 'path', packageName])
  if (!stdout.startsWith('package:')) throw problems.package_not_found({ deviceId, packageName })
}

/** The arguments of `input`, run one after another. */
function inputCommands(input: PhoneInput): string[][] {
  switch (input.kind) {
    case 'tap':
      return [['tap', String(input.x), String(input.y)]]
    case 'swipe': {
      const { fromX, fromY, toX, toY, durationMs } = input
      return [['swipe', ...[fromX, fromY, toX, toY, durationMs].map(String)]]
    }
    case 'key':
      return [['keyevent', input.key]]
    case 'text':
      // Android reads `%s` as a space, and has no way to say a percent sign before an s: the two go apart.
      return input.text.split(/(?<=%)(?=s)/).map((part) => ['text', part.replaceAll(' ', '%s')])
  }
}

/** Reads `pm list packages`: `package:com.example versionCode:12`. */
function appsOf(all: string, added: string): PhoneApp[] {
  const own = new Set([...added.matchAll(/^package:(\S+)/gm)].map(([, name]) => name))
  return [...all.matchAll(/^package:(\S+)(?: versionCode:(\d+))?/gm)]
    .map(([, packageName = '', versionCode]) => ({
      packageName,
      versionCode: versionCode === undefined ? null : Number(versionCode),
      isSystem: !own.has(packageName),
    }))
    .sort((one, other) => (one.packageName < other.packageName ? -1 : 1))
}
