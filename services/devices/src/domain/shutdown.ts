import type { DeviceId } from '@cloudphone/contracts/id'
import type { Sagas } from '@cloudphone/saga/engine'
import { OperationInProgress } from '@cloudphone/saga/errors'
import {
  listToResume,
  liveSagaOf,
  lockDevice,
  moveDevice,
  observeDevices,
  takeResume,
} from '../db/device-repo.ts'
import type { Deps } from './deps.ts'
import { statusChanged, tell } from './facts.ts'
import type { LifecycleDefinitions } from './lifecycle-service.ts'
import { startByPlatform } from './restart.ts'
import { stopFact } from './stop-fact.ts'

/** Phones that are switched off at once. */
const LANES = 16

/**
 * Switches every running phone off and remembers to start it again (decision 20). The row comes first: a crash in between
 * leaves a phone that runs without being charged for, which the next start finds and counts from then on. Devices that
 * another operation is about are left to it. Resolves with how many were stopped.
 */
export async function stopForShutdown(deps: Deps): Promise<number> {
  const observed = await observeDevices(deps.database.kysely)
  const waiting = observed.filter((device) => device.status === 'RUNNING' && !device.busy)
  let stopped = 0
  const lane = async (): Promise<void> => {
    for (let device = waiting.pop(); device !== undefined; device = waiting.pop()) {
      if (!(await markStopped(deps, device.id))) continue
      stopped += 1
      await deps.providers[device.provider_type]
        .stop(device.id)
        .catch((error: unknown) => deps.telemetry.failed('shutdown_stop', device?.id ?? '', String(error)))
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return stopped
}

async function markStopped(deps: Deps, deviceId: DeviceId): Promise<boolean> {
  return await deps.database.transaction(async (tx) => {
    const before = await lockDevice(tx, deviceId)
    if (before?.status !== 'RUNNING' || (await liveSagaOf(tx, deviceId)) !== undefined) return false
    const row = await moveDevice(tx, deviceId, 'stop', {
      events: 2,
      set: { started_at: null, resume_on_start: true },
    })
    if (row === undefined) return false
    const now = deps.clock.now()
    await tell(deps.outbox, tx, row, [
      stopFact(before.started_at, now, 'shutdown'),
      statusChanged('RUNNING', 'STOPPED', now),
    ])
    return true
  })
}

/** Starts what the last shutdown stopped; each once, however many instances ask. */
export async function resumeAfterShutdown(
  deps: Deps,
  sagas: Pick<Sagas, 'start'>,
  definitions: Pick<LifecycleDefinitions, 'device_start'>,
): Promise<number> {
  let resumed = 0
  for (const deviceId of await listToResume(deps.database.kysely)) {
    try {
      await deps.database.transaction(async (tx) => {
        const device = await takeResume(tx, deviceId)
        if (device === undefined) return
        await startByPlatform(tx, { sagas, definitions, device, why: 'resume' })
        resumed += 1
      })
    } catch (error) {
      // Somebody is at it already.
      if (!(error instanceof OperationInProgress)) throw error
    }
  }
  return resumed
}
