import { z } from 'zod'
import { defineEvent } from '../event.ts'
import { AllocationId, DeviceId, TenantId, UserId } from '../id.ts'

/** Why an allocation ended. */
export const ReleaseReason = z.enum([
  'user',
  'operator',
  'expired',
  'device_failed',
  'device_deleted',
  'device_stopped',
  'grant_failed',
])
export type ReleaseReason = z.infer<typeof ReleaseReason>

const AllocationFacts = z.object({
  allocationId: AllocationId,
  deviceId: DeviceId,
  deviceName: z.string(),
  userId: UserId,
  tenantId: TenantId,
  fence: z.int().nonnegative(),
})

export const AllocationActivated = defineEvent({
  name: 'allocation.activated',
  version: 1,
  aggregate: 'allocation',
  description: 'A pooled phone is now held by a user. Metering of the hold begins.',
  payload: AllocationFacts.extend({ activatedAt: z.iso.datetime(), expiresAt: z.iso.datetime() }),
})

export const AllocationReleased = defineEvent({
  name: 'allocation.released',
  version: 1,
  aggregate: 'allocation',
  description: 'The hold ended. Metering of the hold ends.',
  payload: AllocationFacts.extend({
    activatedAt: z.iso.datetime().nullable(),
    releasedAt: z.iso.datetime(),
    /** Whole seconds between activatedAt and releasedAt; 0 when it never became active. */
    durationSeconds: z.int().nonnegative(),
    reason: ReleaseReason,
    /** What a person should be told, such as `Docker container crashed`; empty when the reason says it all. */
    detail: z.string(),
  }),
})
