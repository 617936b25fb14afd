import { z } from 'zod'
import { DeviceStatus, ProviderType } from '../device.ts'
import { defineEvent } from '../event.ts'
import { AllocationId, DeviceId, TenantId, UserId } from '../id.ts'

/** What every device event says: whose phone it is, and who holds it under which fence at that moment. */
const DeviceFacts = z.object({
  deviceId: DeviceId,
  deviceName: z.string(),
  tenantId: TenantId,
  /** The owner of a dedicated phone; null for a pooled one. */
  userId: UserId.nullable(),
  /** The allocation under which a pooled phone was held at that moment; null when none was. */
  allocationId: AllocationId.nullable(),
  fence: z.int().nonnegative(),
})

export const DeviceCreationRequested = defineEvent({
  name: 'device.creation_requested',
  version: 1,
  aggregate: 'device',
  description: 'A phone was asked for; its saga has started.',
  payload: DeviceFacts.extend({ sagaId: z.string(), providerType: ProviderType }),
})

export const DeviceCreated = defineEvent({
  name: 'device.created',
  version: 1,
  aggregate: 'device',
  description: 'The provider made the phone and the row is bound to it. It has not been started yet.',
  payload: DeviceFacts.extend({ providerType: ProviderType, status: DeviceStatus }),
})

export const DeviceCreationFailed = defineEvent({
  name: 'device.creation_failed',
  version: 1,
  aggregate: 'device',
  description: 'Creation failed and everything it had made is gone again.',
  payload: DeviceFacts.extend({ sagaId: z.string(), reason: z.string() }),
})

export const DeviceStarted = defineEvent({
  name: 'device.started',
  version: 1,
  aggregate: 'device',
  description: 'The phone is up: Android has booted and adb answers. Metering begins.',
  payload: DeviceFacts.extend({ startedAt: z.iso.datetime() }),
})

export const DeviceStopped = defineEvent({
  name: 'device.stopped',
  version: 1,
  aggregate: 'device',
  description: 'The phone was stopped in good order. Metering ends.',
  payload: DeviceFacts.extend({
    startedAt: z.iso.datetime().nullable(),
    stoppedAt: z.iso.datetime(),
    /** Whole seconds between startedAt and stoppedAt. */
    duration: z.int().nonnegative(),
    reason: z.enum(['user', 'operator', 'shutdown', 'deletion', 'reset']),
  }),
})

export const DeviceStatusChanged = defineEvent({
  name: 'device.status_changed',
  version: 1,
  aggregate: 'device',
  description: 'The status of a phone changed.',
  payload: DeviceFacts.extend({
    oldStatus: DeviceStatus,
    newStatus: DeviceStatus,
    changedAt: z.iso.datetime(),
  }),
})

export const DeviceFailed = defineEvent({
  name: 'device.failed',
  version: 1,
  aggregate: 'device',
  description: 'A running phone died or disappeared.',
  payload: DeviceFacts.extend({
    reason: z.string(),
    startedAt: z.iso.datetime().nullable(),
    /** The last moment at which the phone is known to have run: metering ends there. */
    failedAt: z.iso.datetime(),
  }),
})

export const DeviceReset = defineEvent({
  name: 'device.reset',
  version: 1,
  aggregate: 'device',
  description: 'All that its users had left on the phone is gone, and that was proved.',
  payload: DeviceFacts.extend({
    status: DeviceStatus,
    /** `handover`: between two holders of a pooled phone; `reset`: somebody asked for it. */
    reason: z.enum(['handover', 'reset']),
    resetAt: z.iso.datetime(),
  }),
})

export const DeviceResetFailed = defineEvent({
  name: 'device.reset_failed',
  version: 1,
  aggregate: 'device',
  description:
    'The phone could not be wiped, or not provably. A pooled one is in quarantine until an operator resets it.',
  payload: DeviceFacts.extend({ status: DeviceStatus, reason: z.string() }),
})

export const DeviceDeleted = defineEvent({
  name: 'device.deleted',
  version: 1,
  aggregate: 'device',
  description: 'The phone and all it held are gone.',
  payload: DeviceFacts.extend({
    reason: z.enum(['deleted', 'creation_failed']),
    deletedAt: z.iso.datetime(),
  }),
})
