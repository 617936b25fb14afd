import type { Tx } from '@cloudphone/db/database'
import type { Sagas } from '@cloudphone/saga/engine'
import { OperationInProgress } from '@cloudphone/saga/errors'
import { dueRestarts, scheduleRestart, takeRestart } from '../db/device-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import type { Deps } from './deps.ts'
import { restartDelayMs } from './device.ts'
import type { LifecycleDefinitions } from './lifecycle-service.ts'

export interface PlatformStart {
  readonly sagas: Pick<Sagas, 'start'>
  readonly definitions: Pick<LifecycleDefinitions, 'device_start'>
  readonly device: DeviceRow
  readonly why: 'restart' | 'resume'
}

/** Starts a device in the name of the platform: once per run of the phone and attempt. */
export async function startByPlatform(tx: Tx<DevicesSchema>, start: PlatformStart): Promise<void> {
  const { device, why } = start
  const userId = device.user_id ?? device.holder_user_id
  await start.sagas.start(tx, {
    definition: start.definitions.device_start,
    businessKey: `${why}:${device.id}:${device.version}:${device.restart_attempts}`,
    subject: device.id,
    tenantId: device.tenant_id,
    ...(userId !== null && { userId }),
    input: {
      deviceId: device.id,
      by: 'platform',
      allocationId: device.allocation_id,
      fence: device.fence,
    },
  })
}

/** A run that lasted so long was a good one: the failures before it are forgotten. */
const GOOD_RUN_MS = 600_000

/** Plans the next start of a device that has just failed, unless the policy's attempts are used up. */
export async function planRestart(
  deps: Deps,
  tx: Tx<DevicesSchema>,
  failed: {
    device: DeviceRow
    /** Infinity when it was not the phone's fault: that uses no attempt up. */
    ranForMs: number
  },
): Promise<void> {
  const { DEVICES_RESTART_ATTEMPTS: most, DEVICES_RESTART_BACKOFF_MS: baseMs } = deps.settings
  const before = failed.ranForMs >= GOOD_RUN_MS ? 0 : failed.device.restart_attempts
  if (before >= most) return
  const attempts = before + 1
  await scheduleRestart(tx, failed.device.id, { delayMs: restartDelayMs(attempts, baseMs), attempts })
}

/** Starts the failed devices whose time has come. */
export async function restartDue(
  deps: Deps,
  parts: Pick<PlatformStart, 'sagas' | 'definitions'>,
): Promise<void> {
  for (const { id } of await dueRestarts(deps.database.kysely)) {
    try {
      await deps.database.transaction(async (tx) => {
        const device = await takeRestart(tx, id)
        if (device !== undefined) await startByPlatform(tx, { ...parts, device, why: 'restart' })
      })
    } catch (error) {
      // Somebody is at it already; the restart stays due and is looked at again.
      if (!(error instanceof OperationInProgress)) throw error
    }
  }
}
