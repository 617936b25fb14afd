import type { DeviceId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { findDevice, lockDevice, moveDevice } from '../db/device-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import type { Deps } from '../domain/deps.ts'
import { statusChanged, tell } from '../domain/facts.ts'
import type { Right } from '../domain/saga-inputs.ts'
import { type StopReason, stopFact } from '../domain/stop-fact.ts'
import { problems } from '../errors.ts'

/** The device's row. @throws `device_not_found`, which no retry can help. */
export async function deviceOf({ database }: Deps, deviceId: DeviceId): Promise<DeviceRow> {
  const row = await findDevice(database.kysely, deviceId)
  if (row === undefined) throw problems.device_not_found({ deviceId })
  return row
}

/** Writes and tells that a device has stopped. False when it is gone or was stopped already: that is what was wanted. */
export async function recordStop(
  { outbox, clock }: Deps,
  tx: Tx<DevicesSchema>,
  deviceId: DeviceId,
  reason: StopReason,
): Promise<boolean> {
  const before = await lockDevice(tx, deviceId)
  const now = clock.now()
  const ran = before?.status === 'RUNNING'
  const row = await moveDevice(tx, deviceId, 'stop', {
    events: ran ? 2 : 1,
    set: { started_at: null, restart_at: null, restart_attempts: 0, last_error: null },
  })
  if (before === undefined || row === undefined) return false
  const changed = statusChanged(before.status, 'STOPPED', now)
  await tell(outbox, tx, row, ran ? [stopFact(before.started_at, now, reason), changed] : [changed])
  return true
}

/** A holder's operation is void once somebody else holds the device. @throws `stale_allocation`. */
export function refuseStale(row: DeviceRow, { by, fence }: Right): void {
  if (by !== 'user' || row.user_id !== null || row.fence === fence) return
  throw problems.stale_allocation({ deviceId: row.id, fence, currentFence: row.fence })
}
