import type { EventDefinition, PayloadOf } from '@cloudphone/contracts/event'
import type {
  DeviceCreated,
  DeviceCreationFailed,
  DeviceCreationRequested,
  DeviceDeleted,
  DeviceFailed,
  DeviceReset,
  DeviceResetFailed,
  DeviceStarted,
  DeviceStopped,
} from '@cloudphone/contracts/events/device-events'
import { DeviceStatusChanged } from '@cloudphone/contracts/events/device-events'
import type { AnyTx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { DeviceRow } from '../db/schema.ts'

type DeviceEvent =
  | typeof DeviceCreationRequested
  | typeof DeviceCreated
  | typeof DeviceCreationFailed
  | typeof DeviceStarted
  | typeof DeviceStopped
  | typeof DeviceStatusChanged
  | typeof DeviceFailed
  | typeof DeviceReset
  | typeof DeviceResetFailed
  | typeof DeviceDeleted

type CommonKey = 'deviceId' | 'deviceName' | 'tenantId' | 'userId' | 'allocationId' | 'fence'

/** One thing to tell of a device, beyond whose it is and who holds it: those come from its row. */
export interface Fact {
  readonly definition: EventDefinition
  readonly extra: Readonly<Record<string, unknown>>
}

/** Names an event and what it says. */
export function fact<Definition extends DeviceEvent>(
  definition: Definition,
  extra: Omit<PayloadOf<Definition>, CommonKey>,
): Fact {
  return { definition, extra }
}

/**
 * Writes the facts of one change in order. `row` is the device as the change left it, whose version has counted one step
 * for each of them.
 */
export async function tell(outbox: Outbox, tx: AnyTx, row: DeviceRow, facts: readonly Fact[]): Promise<void> {
  const common = {
    deviceId: row.id,
    deviceName: row.name,
    tenantId: row.tenant_id,
    userId: row.user_id,
    allocationId: row.allocation_id,
    fence: row.fence,
  }
  let aggregateVersion = row.version - facts.length
  for (const { definition, extra } of facts) {
    aggregateVersion += 1
    await outbox.add(tx, definition, {
      aggregateId: row.id,
      aggregateVersion,
      payload: { ...common, ...extra },
    })
  }
}

/** `device.status_changed`. */
export function statusChanged(
  oldStatus: DeviceRow['status'],
  newStatus: DeviceRow['status'],
  at: Date,
): Fact {
  return fact(DeviceStatusChanged, { oldStatus, newStatus, changedAt: at.toISOString() })
}
