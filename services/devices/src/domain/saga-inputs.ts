import type { ProviderType } from '@cloudphone/contracts/device'
import type { AllocationId, AppId, DeviceId, InstallationId, UserId } from '@cloudphone/contracts/id'

export interface DeviceCreationInput {
  readonly deviceId: DeviceId
  /** The owner, whose quota was reserved under the device's id; null for a pooled phone. */
  readonly userId: UserId | null
  readonly providerType: ProviderType
}

/** Under what right an operation was accepted. `platform` is the restart policy and the platform's own start. */
export interface Right {
  readonly by: 'user' | 'operator' | 'platform'
  readonly allocationId: AllocationId | null
  readonly fence: number
}

export interface LifecycleInput extends Right {
  readonly deviceId: DeviceId
}

export interface DeviceResetInput extends LifecycleInput {
  /** `handover`: what a holder has left behind; `reset`: somebody asked for it. */
  readonly reason: 'handover' | 'reset'
}

export interface DeviceDeletionInput {
  readonly deviceId: DeviceId
  /** Whose quota it took; null for a pooled one. */
  readonly userId: UserId | null
}

export interface AppInstallationInput {
  readonly installationId: InstallationId
  readonly appId: AppId
  readonly deviceId: DeviceId
  readonly userId: UserId
  readonly packageName: string
  readonly allocationId: AllocationId | null
  readonly fence: number
  readonly sizeBytes: number
  readonly sha256: string
}

/** What each saga of this service is started with: a device's id stays the same, the rest is read anew by each step. */
export interface SagaInputs {
  readonly device_creation: DeviceCreationInput
  readonly device_start: LifecycleInput
  readonly device_stop: LifecycleInput
  readonly device_reset: DeviceResetInput
  readonly device_deletion: DeviceDeletionInput
  readonly app_installation: AppInstallationInput
}
