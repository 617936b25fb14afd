import { type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import type { DeviceRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'

const CONNECT_TIMEOUT_MS = 5_000

/** Opens an adb session to a running device with the platform's own key. Close it. @throws `device_not_running`, AdbError. */
export async function openPhone(
  device: DeviceRow,
  keys: AdbKeyApplier,
  signal: AbortSignal,
): Promise<AdbSession> {
  const { adb_host: host, adb_port: port, status } = device
  if (status !== 'RUNNING' || host === null || port === null) {
    throw problems.device_not_running({ deviceId: device.id, status })
  }
  return await connectAdb({
    host,
    port,
    keys: [await keys.platformKey()],
    timeoutMs: CONNECT_TIMEOUT_MS,
    signal,
  })
}
