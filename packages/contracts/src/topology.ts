/* The fixed table of the bus: which queue of which service hears which events. Every process declares all of it before
 * its first publish, so that no event is published before its queues exist. */
import type { EventDefinition } from './event.ts'
import { AllocationActivated, AllocationReleased } from './events/allocation-events.ts'
import { AppInstallCompleted, AppInstallFailed, AppInstallRequested } from './events/app-events.ts'
import {
  DeviceCreated,
  DeviceCreationFailed,
  DeviceCreationRequested,
  DeviceDeleted,
  DeviceFailed,
  DeviceReset,
  DeviceResetFailed,
  DeviceStarted,
  DeviceStatusChanged,
  DeviceStopped,
} from './events/device-events.ts'
import {
  TenantQuotaUpdated,
  UserActivated,
  UserCreated,
  UserDeleted,
  UserQuotaExceeded,
  UserQuotaUpdated,
  UserSuspended,
} from './events/user-events.ts'
import type { ServiceName } from './services.ts'

/** One queue of one service. */
export interface Subscription {
  readonly queue: string
  readonly service: ServiceName
  readonly events: readonly EventDefinition[]
  /** A critical event that fails for good lands in the dead letters; an informational one is logged and done with. */
  readonly critical: boolean
}

/** Every event there is, in the order of docs/events.md. */
export const events: readonly EventDefinition[] = [
  DeviceCreationRequested,
  DeviceCreated,
  DeviceCreationFailed,
  DeviceStarted,
  DeviceStopped,
  DeviceStatusChanged,
  DeviceFailed,
  DeviceReset,
  DeviceResetFailed,
  DeviceDeleted,
  AllocationActivated,
  AllocationReleased,
  AppInstallRequested,
  AppInstallCompleted,
  AppInstallFailed,
  UserCreated,
  UserSuspended,
  UserActivated,
  UserDeleted,
  UserQuotaUpdated,
  UserQuotaExceeded,
  TenantQuotaUpdated,
]

function queue(
  service: ServiceName,
  name: string,
  events: readonly EventDefinition[],
  weight: 'critical' | 'informational',
): Subscription {
  return { service, queue: name, events, critical: weight === 'critical' }
}

export const subscriptions: readonly Subscription[] = [
  queue('devices', 'device-service.app-install', [AppInstallRequested], 'critical'),
  queue('devices', 'devices.quota-updated', [UserQuotaUpdated, TenantQuotaUpdated], 'critical'),
  queue('apps', 'app-service.install-status', [AppInstallCompleted, AppInstallFailed], 'critical'),
  queue('apps', 'apps.device-deleted', [DeviceDeleted], 'critical'),
  queue('billing', 'billing-service.device-started', [DeviceStarted], 'critical'),
  queue('billing', 'billing-service.device-stopped', [DeviceStopped], 'critical'),
  queue('billing', 'billing.device-failed', [DeviceFailed], 'critical'),
  queue('billing', 'billing.device-deleted', [DeviceDeleted], 'critical'),
  queue('billing', 'billing.allocation-activated', [AllocationActivated], 'critical'),
  queue('billing', 'billing.allocation-released', [AllocationReleased], 'critical'),
  queue('scheduler', 'scheduler.device-created', [DeviceCreated], 'informational'),
  queue('scheduler', 'scheduler.device-started', [DeviceStarted], 'critical'),
  queue('scheduler', 'scheduler.device-stopped', [DeviceStopped], 'critical'),
  queue('scheduler', 'scheduler.device-status-changed', [DeviceStatusChanged], 'critical'),
  queue('scheduler', 'scheduler.device-failed', [DeviceFailed], 'critical'),
  queue('scheduler', 'scheduler.device-reset', [DeviceReset, DeviceResetFailed], 'critical'),
  queue('scheduler', 'scheduler.device-deleted', [DeviceDeleted], 'critical'),
  queue('scheduler', 'scheduler.user-created', [UserCreated], 'critical'),
  queue('notifications', 'notifications.device-failed', [DeviceFailed], 'informational'),
  queue('notifications', 'notifications.device-deleted', [DeviceDeleted], 'informational'),
  queue('notifications', 'notifications.device-creation-failed', [DeviceCreationFailed], 'informational'),
  queue('notifications', 'notifications.allocation-activated', [AllocationActivated], 'informational'),
  queue('notifications', 'notifications.allocation-released', [AllocationReleased], 'informational'),
  queue(
    'notifications',
    'notifications.app-install',
    [AppInstallCompleted, AppInstallFailed],
    'informational',
  ),
]
