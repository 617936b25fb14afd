import { AdbError } from '@cloudphone/adb-client/adb-client'
import type { Caller } from '@cloudphone/contracts/access'
import type { DeviceId } from '@cloudphone/contracts/id'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'
import type { Deps } from './deps.ts'
import { visibleDevice } from './lifecycle-service.ts'
import { visitPhone } from './phone-door.ts'

const TIMEOUT_MS = 15_000
/** A PNG of 3840 x 3840 random pixels is larger; no screen looks like that. */
const LIMIT_BYTES = 32 * 1024 * 1024
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47])

/** What the phone shows now, as a PNG, for whoever may use the device. @throws `device_not_running`, `screenshot_failed`. */
export async function takeScreenshot(
  deps: Deps,
  keys: AdbKeyApplier,
  asked: { caller: Caller; deviceId: DeviceId; signal: AbortSignal },
): Promise<Buffer> {
  const { caller, deviceId } = asked
  const device = await visibleDevice(deps, caller, deviceId)
  const signal = AbortSignal.any([asked.signal, AbortSignal.timeout(TIMEOUT_MS)])
  try {
    const image = await visitPhone({ device, keys, signal }, (phone) =>
      phone.exec(['screencap', '-p'], { limitBytes: LIMIT_BYTES }),
    )
    if (!image.subarray(0, 4).equals(PNG)) throw new AdbError('command_failed', 'no PNG came')
    return image
  } catch (error) {
    const late = signal.aborted && !asked.signal.aborted
    if (!late && !(error instanceof AdbError)) throw error
    const reason = late ? `it took more than ${TIMEOUT_MS / 1000} s` : (error as AdbError).message
    throw problems.screenshot_failed({ deviceId, reason })
  }
}
