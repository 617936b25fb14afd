import { pipeline } from 'node:stream/promises'
import { AdbError } from '@cloudphone/adb-client/adb-client'
import { GetApk } from '@cloudphone/contracts/api/apps-api'
import { AppInstallCompleted, AppInstallFailed } from '@cloudphone/contracts/events/app-events'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import { saga } from '@cloudphone/saga/builder'
import { PermanentError } from '@cloudphone/saga/errors'
import { findDevice } from '../db/device-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import type { AdbKeyApplier } from '../domain/adb-key-applier.ts'
import { checkedApk } from '../domain/checked-apk.ts'
import type { Deps } from '../domain/deps.ts'
import { visitPhone } from '../domain/phone-door.ts'
import type { AppInstallationInput } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'

const TIMEOUT_MS = 1_800_000
/** 2 GiB over a slow disk. */
const INSTALL_TIMEOUT_MS = 600_000

/** Streams an APK from the apps service into a phone's package manager, under the right it was asked for. */
export function appInstallation(deps: Deps, keys: AdbKeyApplier) {
  const { outbox, clock, telemetry } = deps
  return saga('app_installation', 1, { timeoutMs: TIMEOUT_MS })
    .input<AppInstallationInput, Tx<DevicesSchema>>()
    .call('INSTALL_APP', async (s, { signal }) => await install(deps, keys, s, signal), {
      timeoutMs: INSTALL_TIMEOUT_MS,
      record: async (tx, s) => {
        await outbox.add(tx, AppInstallCompleted, {
          aggregateId: s.installationId,
          aggregateVersion: 1,
          payload: { ...factsOf(s), completedAt: clock.now().toISOString() },
        })
        afterCommit(tx, () => telemetry.installed(s.installationId))
      },
    })
    .onCompensated(async (tx, s, { error }) => {
      await outbox.add(tx, AppInstallFailed, {
        aggregateId: s.installationId,
        aggregateVersion: 1,
        payload: { ...factsOf(s), reason: error, failedAt: clock.now().toISOString() },
      })
      afterCommit(tx, () => telemetry.installFailed(s.installationId, error))
    })
    .end()
}

function factsOf({ installationId, appId, deviceId, userId, packageName }: AppInstallationInput) {
  return { installationId, appId, deviceId, userId, packageName }
}

async function install(
  deps: Deps,
  keys: AdbKeyApplier,
  input: AppInstallationInput,
  signal: AbortSignal,
): Promise<void> {
  const device = await rightfulDevice(deps, input)
  const { appId, sizeBytes } = input
  const apk = checkedApk(input)
  const body = await deps.client.stream(GetApk, {
    params: { appId },
    query: { installationId: input.installationId },
    signal,
    timeoutMs: INSTALL_TIMEOUT_MS,
  })
  const feeding = pipeline(body, apk, { signal })
  const installing = visitPhone({ device, keys, signal }, (phone) => phone.install(apk, sizeBytes))
  // Bytes that nobody takes any more need not come.
  installing.catch((error: unknown) => apk.destroy(error instanceof Error ? error : undefined))
  const [fed, installed] = await Promise.allSettled([feeding, installing])
  // A damaged APK is told as such; the phone only knows that it hung up.
  if (fed.status === 'rejected' && fed.reason instanceof PermanentError) throw fed.reason
  if (installed.status === 'rejected') throw verdictOf(installed.reason)
  // Again, now that it is done: the holder may have changed while the bytes went over.
  await rightfulDevice(deps, input)
}

/** The device, when the right under which the app was asked for still holds. @throws what the user should read. */
async function rightfulDevice(
  { database }: Deps,
  { deviceId, allocationId, fence }: AppInstallationInput,
): Promise<DeviceRow> {
  const device = await findDevice(database.kysely, deviceId)
  if (device === undefined) throw problems.device_not_found({ deviceId })
  const stale = device.allocation_id !== allocationId || device.fence !== fence
  if (device.user_id === null && stale) {
    throw new PermanentError('stale_allocation', 'stale_allocation: the phone is held by somebody else now')
  }
  if (device.status !== 'RUNNING') {
    throw problems.device_not_running({ deviceId, deviceStatus: device.status })
  }
  return device
}

/** What the package manager refused it would refuse again, but for its own hiccups. */
function verdictOf(error: unknown): unknown {
  if (!(error instanceof AdbError) || error.code !== 'install_failed') return error
  if (!/INSTALL_(FAILED|PARSE_FAILED)_/.test(error.message)) return error
  return new PermanentError('install_failed', error.message, { cause: error })
}
