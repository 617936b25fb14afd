import { AllocationActivated, AllocationReleased } from '@cloudphone/contracts/events/allocation-events'
import type { AnyTx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { AllocationRow } from '../db/schema.ts'
import { wholeSeconds } from './allocation.ts'

function common(row: AllocationRow) {
  return {
    allocationId: row.id,
    deviceId: row.device_id,
    deviceName: row.device_name,
    userId: row.user_id,
    tenantId: row.tenant_id,
    fence: row.fence,
  }
}

/** Emits `allocation.activated` of a row that has just become ACTIVE. */
export async function tellActivated(outbox: Outbox, tx: AnyTx, row: AllocationRow): Promise<void> {
  if (row.allocated_at === null || row.expires_at === null) throw new Error(`${row.id} is not active`)
  await outbox.add(tx, AllocationActivated, {
    aggregateId: row.id,
    aggregateVersion: row.version,
    payload: {
      ...common(row),
      activatedAt: row.allocated_at.toISOString(),
      expiresAt: row.expires_at.toISOString(),
    },
  })
}

/** Emits `allocation.released` of a row that has just ended; `allocated_at` is null when its grant failed. */
export async function tellReleased(outbox: Outbox, tx: AnyTx, row: AllocationRow): Promise<void> {
  if (row.reason === null || row.released_at === null) throw new Error(`${row.id} has not ended`)
  await outbox.add(tx, AllocationReleased, {
    aggregateId: row.id,
    aggregateVersion: row.version,
    payload: {
      ...common(row),
      activatedAt: row.allocated_at?.toISOString() ?? null,
      releasedAt: row.released_at.toISOString(),
      durationSeconds: wholeSeconds(row.allocated_at, row.released_at),
      reason: row.reason,
      detail: row.detail,
    },
  })
}
