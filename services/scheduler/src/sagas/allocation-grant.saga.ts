import type { AllocationId, DeviceId, UserId } from '@cloudphone/contracts/id'
import { afterCommit, type Tx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import { saga } from '@cloudphone/saga/builder'
import { PermanentError } from '@cloudphone/saga/errors'
import { activate, failGrant } from '../db/allocation-repo.ts'
import { freePhone } from '../db/phone-repo.ts'
import type { SchedulerSchema } from '../db/schema.ts'
import { tellActivated, tellReleased } from '../domain/facts.ts'
import type { Holders } from '../domain/holder.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'

const TIMEOUT_MS = 60_000
const CALL_TIMEOUT_MS = 10_000

export interface GrantInput {
  readonly allocationId: AllocationId
  readonly deviceId: DeviceId
  readonly userId: UserId
  readonly fence: number
  readonly releaseFence: number
}

/**
 * Gives a claimed phone to its holder. The fence is raised at the devices service before the allocation is ACTIVE, so
 * whoever sees it ACTIVE can use the phone. Taken back, it frees the phone: the fence of the undo was reserved with the
 * claim, hence a raise that arrives late finds a higher one and is refused.
 */
export function allocationGrant(deps: { holders: Holders; outbox: Outbox; telemetry: SchedulerTelemetry }) {
  const { holders, outbox, telemetry } = deps
  return saga('allocation_grant', 1, { timeoutMs: TIMEOUT_MS })
    .input<GrantInput, Tx<SchedulerSchema>>()
    .call('RAISE_FENCE', (s, { signal }) => holders.raise({ ...s, signal }), { timeoutMs: CALL_TIMEOUT_MS })
    .undo((s, { signal }) => holders.lower({ deviceId: s.deviceId, fence: s.releaseFence, signal }))
    .local('ACTIVATE', async (tx, s) => {
      const row = await activate(tx, s.allocationId)
      if (row === undefined) {
        throw new PermanentError('phone_lost', `The phone of allocation ${s.allocationId} was lost meanwhile`)
      }
      await tellActivated(outbox, tx, row)
      afterCommit(tx, () => telemetry.activated(s))
    })
    .onCompensated(async (tx, s, { error }) => {
      // The phone's row first, as everywhere: what locks both in another order would meet it in a deadlock.
      await freePhone(tx, s.deviceId)
      const row = await failGrant(tx, s.allocationId, error)
      if (row === undefined) throw new Error(`Allocation ${s.allocationId} is no longer PENDING`)
      await tellReleased(outbox, tx, row)
      afterCommit(tx, () => telemetry.failed({ ...s, detail: row.detail }))
    })
    .end()
}

export type GrantDefinition = ReturnType<typeof allocationGrant>
