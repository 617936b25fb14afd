import { SetHolder } from '@cloudphone/contracts/api/devices-api'
import type { AllocationId, DeviceId, UserId } from '@cloudphone/contracts/id'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'

/** Tells the devices service who holds a pooled phone. Both verbs are idempotent by their fence. */
export interface Holders {
  /** @throws ProblemError as the devices service answers: a phone that does not run cannot be given to anybody. */
  raise(hold: {
    deviceId: DeviceId
    fence: number
    allocationId: AllocationId
    userId: UserId
    signal: AbortSignal
  }): Promise<void>
  /**
   * Makes sure that the hold under a lower fence is over; also when nobody knows whether it ever began. Resolves with whether
   * the phone has something of its holder on it, which the devices service wipes: `device.reset` says when it is done.
   */
  lower(end: { deviceId: DeviceId; fence: number; signal: AbortSignal }): Promise<{ soiled: boolean }>
}

/**
 * A phone that is gone or does not run is used by nobody, and one that stands under a higher fence has left the hold
 * behind already: all of it counts as lowered.
 */
const lowered: ReadonlySet<string> = new Set(['device_not_found', 'device_not_running', 'stale_allocation'])

/** What the holder before asked of the phone, or left on it, is still being seen to. */
const passing: ReadonlySet<string> = new Set(['operation_in_progress', 'device_not_clean'])

/** Opens the port to the devices service. */
export function openHolders(client: Pick<ServiceClient, 'call'>): Holders {
  return {
    raise: async ({ deviceId, fence, allocationId, userId, signal }) => {
      try {
        const body = { fence, allocationId, userId }
        await client.call(SetHolder, { params: { deviceId }, body, signal })
      } catch (error) {
        const passes = error instanceof ProblemError && passing.has(error.code)
        throw passes ? new Error(error.message, { cause: error }) : error
      }
    },
    lower: async ({ deviceId, fence, signal }) => {
      try {
        const body = { fence, allocationId: null, userId: null }
        const { hygiene } = await client.call(SetHolder, { params: { deviceId }, body, signal })
        return { soiled: hygiene !== 'clean' }
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error
        if (error.status !== 404 && error.status !== 410 && !lowered.has(error.code)) throw error
        return { soiled: false }
      }
    },
  }
}
