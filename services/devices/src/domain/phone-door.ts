import { AdbError, type AdbSession, connectAdb } from '@cloudphone/adb-client/adb-client'
import type { DeviceId } from '@cloudphone/contracts/id'
import { findDevice, liveSagaOf } from '../db/device-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'
import type { Deps } from './deps.ts'

const CONNECT_TIMEOUT_MS = 5_000

export interface PhoneVisit {
  readonly device: DeviceRow
  readonly keys: Pick<AdbKeyApplier, 'platformKey'>
  readonly signal: AbortSignal
}

/** Opens an adb session to a running device with the platform's own key. @throws `device_not_running`, AdbError. */
export async function openPhone({ device, keys, signal }: PhoneVisit): Promise<AdbSession> {
  const { adb_host: host, adb_port: port, status } = device
  if (status !== 'RUNNING' || host === null || port === null) {
    throw problems.device_not_running({ deviceId: device.id, deviceStatus: status })
  }
  const own = [await keys.platformKey()]
  return await connectAdb({ host, port, keys: own, timeoutMs: CONNECT_TIMEOUT_MS, signal })
}

/**
 * Runs `work` on an adb session to a running device, opened with the platform's own key, for as long as the phone is there
 * and the signal has not fired: what was asked of a phone that died in between is never answered.
 * @throws `device_not_running`, AdbError, the signal's reason, or what `work` throws.
 */
export async function visitPhone<T>(visit: PhoneVisit, work: (phone: AdbSession) => Promise<T>): Promise<T> {
  const { signal } = visit
  const phone = await openPhone(visit)
  const ended = Promise.withResolvers<never>()
  const abort = (): void => ended.reject(signal.reason)
  const lost = (): void => ended.reject(new AdbError('closed', 'the phone has hung up'))
  signal.addEventListener('abort', abort, { once: true })
  phone.adb.disconnected.then(lost, lost)
  try {
    return await Promise.race([work(phone), ended.promise])
  } finally {
    signal.removeEventListener('abort', abort)
    // The work is done or given up; a phone that cannot be told good-bye is told by the end of the connection.
    void phone.close().catch(() => undefined)
  }
}

/** The connection to the phone failed, and not what was asked of it. */
const lost: ReadonlySet<AdbError['code']> = new Set(['unreachable', 'unauthorized', 'closed'])

/**
 * What to tell of an error that a phone gave: in its own words what it refuses; when it is out of reach, why, if that is known:
 * somebody is stopping it, or has.
 */
export async function phoneProblem(
  { database: { kysely } }: Pick<Deps, 'database'>,
  deviceId: DeviceId,
  error: Error,
): Promise<Error> {
  const facts = { deviceId, reason: error.message }
  if (!(error instanceof AdbError && lost.has(error.code))) return problems.phone_refused(facts)
  const sagaId = await liveSagaOf(kysely, deviceId)
  if (sagaId !== undefined) return problems.operation_in_progress({ deviceId, sagaId })
  const now = await findDevice(kysely, deviceId)
  if (now === undefined) return problems.device_not_found({ deviceId })
  if (now.status !== 'RUNNING') return problems.device_not_running({ deviceId, deviceStatus: now.status })
  return problems.phone_failed(facts)
}
