import type { AllocationId, DeviceId } from '@cloudphone/contracts/id'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { saga } from '@cloudphone/saga/builder'
import { endAllocation, findAllocation } from '../db/allocation-repo.ts'
import { freePhone } from '../db/phone-repo.ts'
import type { SchedulerSchema } from '../db/schema.ts'
import { endOf, wholeSeconds } from '../domain/allocation.ts'
import { tellReleased } from '../domain/facts.ts'
import type { Holders } from '../domain/holder.ts'
import type { Sessions } from '../domain/sessions.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'

/** Without meaning for the steps, which only go forward; what takes longer counts as overdue for the doctor. */
const TIMEOUT_MS = 60_000
const CALL_TIMEOUT_MS = 10_000

export interface ReleaseInput {
  readonly allocationId: AllocationId
  readonly deviceId: DeviceId
  readonly releaseFence: number
}

/**
 * Takes a phone back. It only goes forward: while the devices service does not answer the phone stays leased, since
 * nobody may get it before its last holder has lost it. What he left on it is wiped before it is available again; that is not
 * part of the allocation, which ends here.
 */
export function allocationRelease(deps: {
  holders: Holders
  sessions: Sessions
  outbox: Outbox
  telemetry: SchedulerTelemetry
}) {
  const { holders, sessions, outbox, telemetry } = deps
  return saga('allocation_release', 1, { timeoutMs: TIMEOUT_MS })
    .input<ReleaseInput, Tx<SchedulerSchema>>()
    .pointOfNoReturn()
    .call(
      'LOWER_HOLDER',
      (s, { signal }) => holders.lower({ deviceId: s.deviceId, fence: s.releaseFence, signal }),
      { timeoutMs: CALL_TIMEOUT_MS },
    )
    .local('FINISH', async (tx, s) => {
      // The phone's row first, as everywhere: what locks both in another order would meet it in a deadlock.
      await freePhone(tx, s.deviceId, s.soiled ? { soiledUnder: s.releaseFence } : {})
      const known = await findAllocation(tx, s.allocationId)
      const row = await endAllocation(tx, s.allocationId, endOf(known?.reason ?? null))
      if (row === undefined) throw new Error(`Allocation ${s.allocationId} is not RELEASING`)
      const { reason, released_at: releasedAt } = row
      if (reason === null || releasedAt === null) throw new Error(`Allocation ${s.allocationId} has no end`)
      await sessions.owe(tx, row.quota_reservation_id)
      await tellReleased(outbox, tx, row)
      afterCommit(tx, () =>
        telemetry.released({
          ...{ allocationId: row.id, deviceId: row.device_id, userId: row.user_id, reason },
          durationSeconds: wholeSeconds(row.allocated_at, releasedAt),
        }),
      )
    })
    .end()
}

export type ReleaseDefinition = ReturnType<typeof allocationRelease>
