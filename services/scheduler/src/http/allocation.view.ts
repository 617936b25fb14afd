import type { Allocation } from '@cloudphone/contracts/api/scheduler-api'
import type { AllocationRow } from '../domain/allocation-service.ts'

/** An allocation as the API shows it; `sagaId` is the saga that moved it last. */
export function viewOfAllocation(row: AllocationRow): Allocation {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    userId: row.user_id,
    deviceId: row.device_id,
    deviceName: row.device_name,
    status: row.status,
    fence: row.fence,
    durationMinutes: row.duration_minutes,
    reason: row.reason,
    sagaId: row.release_saga_id ?? row.grant_saga_id,
    createdAt: row.created_at.toISOString(),
    allocatedAt: row.allocated_at?.toISOString() ?? null,
    expiresAt: row.expires_at?.toISOString() ?? null,
    releasedAt: row.released_at?.toISOString() ?? null,
  }
}

export function viewOfAccepted(row: AllocationRow): { sagaId: string; allocation: Allocation } {
  const allocation = viewOfAllocation(row)
  return { sagaId: allocation.sagaId, allocation }
}
