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
import type { Sessions } from '../domain/sessions.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'

export const GRANT_TIMEOUT_MS = 60_000
const CALL_TIMEOUT_MS = 10_000

export interface GrantInput {
  readonly allocationId: AllocationId
  readonly deviceId: DeviceId
  readonly userId: UserId
  readonly fence: number
  readonly releaseFence: number
}

export interface GrantWithSession extends GrantInput {
  readonly reservationId: string
}

/**
 * Gives a claimed phone to its holder. The session of quota is kept first: one that ran out of time gives nobody a phone. The fence is raised at the devices service before the allocation is ACTIVE, so
 * whoever sees it ACTIVE can use the phone. Taken back, it frees the phone: the fence of the undo was reserved with the
 * claim, hence a raise that arrives late finds a higher one and is refused.
 */
export function allocationGrant(deps: GrantDeps) {
  const step = grantSteps(deps)
  return (
    saga('allocation_grant', 2, { timeoutMs: GRANT_TIMEOUT_MS })
      .input<GrantWithSession, Tx<SchedulerSchema>>()
      // Whatever becomes of the grant, its end owes the session back.
      .call('KEEP_SESSION', (s, { signal }) => deps.sessions.commit(s.reservationId, signal), {
        timeoutMs: CALL_TIMEOUT_MS,
      })
      .call('RAISE_FENCE', step.raise, { timeoutMs: CALL_TIMEOUT_MS })
      .undo(step.lower)
      .local('ACTIVATE', step.activate)
      .onCompensated(step.fail)
      .end()
  )
}

/** Grants that were begun before allocations held sessions; until the last of them has ended. */
export function allocationGrantWithoutSession(deps: GrantDeps) {
  const step = grantSteps(deps)
  return saga('allocation_grant', 1, { timeoutMs: GRANT_TIMEOUT_MS })
    .input<GrantInput, Tx<SchedulerSchema>>()
    .call('RAISE_FENCE', step.raise, { timeoutMs: CALL_TIMEOUT_MS })
    .undo(step.lower)
    .local('ACTIVATE', step.activate)
    .onCompensated(step.fail)
    .end()
}

interface GrantDeps {
  readonly holders: Holders
  readonly sessions: Sessions
  readonly outbox: Outbox
  readonly telemetry: SchedulerTelemetry
}

function grantSteps({ holders, sessions, outbox, telemetry }: GrantDeps) {
  return {
    raise: (s: GrantInput, { signal }: { signal: AbortSignal }) => holders.raise({ ...s, signal }),

    lower: async (s: GrantInput, { signal }: { signal: AbortSignal }) => {
      await holders.lower({ deviceId: s.deviceId, fence: s.releaseFence, signal })
    },

    activate: async (tx: Tx<SchedulerSchema>, s: GrantInput) => {
      const row = await activate(tx, s.allocationId)
      if (row === undefined) {
        throw new PermanentError('phone_lost', `The phone of allocation ${s.allocationId} was lost meanwhile`)
      }
      await tellActivated(outbox, tx, row)
      afterCommit(tx, () => telemetry.activated(s))
    },

    fail: async (tx: Tx<SchedulerSchema>, s: GrantInput, { error }: { error: string }) => {
      // The phone's row first, as everywhere: what locks both in another order would meet it in a deadlock.
      await freePhone(tx, s.deviceId)
      const row = await failGrant(tx, s.allocationId, error)
      if (row === undefined) throw new Error(`Allocation ${s.allocationId} is no longer PENDING`)
      await sessions.owe(tx, row.quota_reservation_id)
      await tellReleased(outbox, tx, row)
      afterCommit(tx, () => telemetry.failed({ ...s, detail: row.detail }))
    },
  }
}

export type GrantDefinition = ReturnType<typeof allocationGrant>
