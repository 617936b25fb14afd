import type { DeviceId } from '@cloudphone/contracts/id'
import { findDevice } from '../db/device-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import type { Deps } from '../domain/deps.ts'
import type { Right } from '../domain/saga-inputs.ts'
import { problems } from '../errors.ts'

/** The device's row. @throws `device_not_found`, which no retry can help. */
export async function deviceOf({ database }: Deps, deviceId: DeviceId): Promise<DeviceRow> {
  const row = await findDevice(database.kysely, deviceId)
  if (row === undefined) throw problems.device_not_found({ deviceId })
  return row
}

/** A holder's operation is void once somebody else holds the device. @throws `stale_allocation`. */
export function refuseStale(row: DeviceRow, { by, fence }: Right): void {
  if (by !== 'user' || row.user_id !== null || row.fence === fence) return
  throw problems.stale_allocation({ deviceId: row.id, fence, currentFence: row.fence })
}
