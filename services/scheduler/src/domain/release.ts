import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import type { AllocationId, Ids } from '@cloudphone/contracts/id'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import type { Sagas } from '@cloudphone/saga/engine'
import { beginEnding } from '../db/allocation-repo.ts'
import type { AllocationRow, SchedulerSchema } from '../db/schema.ts'
import type { ReleaseDefinition } from '../sagas/allocation-release.saga.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'

/** Begins the end of an ACTIVE allocation in the caller's transaction; undefined when it was not ACTIVE. */
export type BeginRelease = (
  tx: Tx<SchedulerSchema>,
  end: {
    allocationId: AllocationId
    /** When given, only the hold under this fence is meant. */
    fence?: number
    reason: ReleaseReason
    detail?: string
    endedAt?: Date
  },
) => Promise<AllocationRow | undefined>

/** The one way out of ACTIVE: the guarded update and the saga `allocation_release` in one commit. */
export function releaser(deps: {
  sagas: Sagas
  audit: Audit
  definition: ReleaseDefinition
  ids: Ids
  telemetry: SchedulerTelemetry
}): BeginRelease {
  const { sagas, audit, definition, ids, telemetry } = deps
  return async (tx, { detail = '', ...end }) => {
    const sagaId = `${definition.type}-${ids.next<'saga'>()}`
    const row = await beginEnding(tx, { ...end, detail, sagaId })
    if (row === undefined) return undefined
    await sagas.start(tx, {
      ...{ definition, sagaId, businessKey: row.id, subject: row.id },
      ...{ userId: row.user_id, tenantId: row.tenant_id },
      input: { allocationId: row.id, deviceId: row.device_id, releaseFence: row.release_fence },
    })
    const { id: allocationId, device_id: deviceId, user_id: userId, tenant_id: tenantId } = row
    await audit.add(tx, {
      ...{ verb: 'allocation.release', target: allocationId, tenantId, reason: end.reason },
      ...{ before: { status: 'ACTIVE', deviceId, userId }, after: { status: row.status, sagaId, detail } },
    })
    afterCommit(tx, () => telemetry.releasing({ allocationId, deviceId, userId, reason: end.reason, detail }))
    return row
  }
}
