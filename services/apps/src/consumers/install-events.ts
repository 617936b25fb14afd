import { type EventHandler, on } from '@cloudphone/bus/consumer'
import { AppInstallCompleted, AppInstallFailed } from '@cloudphone/contracts/events/app-events'
import { DeviceDeleted } from '@cloudphone/contracts/events/device-events'
import type { Tx } from '@cloudphone/db/database'
import type { AppsSchema, InstallationService } from '../domain/installation-service.ts'

/** Queues `app-service.install-status` and `apps.device-deleted`: what ends installations. */
export function installEvents(installations: InstallationService): EventHandler<AppsSchema>[] {
  return [
    on(AppInstallCompleted, (tx: Tx<AppsSchema>, { data }) =>
      installations.completed(tx, data.installationId),
    ),
    on(AppInstallFailed, (tx: Tx<AppsSchema>, { data }) =>
      installations.failed(tx, data.installationId, data.reason),
    ),
    on(DeviceDeleted, (tx: Tx<AppsSchema>, { data }) => installations.deviceDeleted(tx, data.deviceId)),
  ]
}
