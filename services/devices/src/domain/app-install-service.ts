import type { PayloadOf } from '@cloudphone/contracts/event'
import type { AppInstallRequested } from '@cloudphone/contracts/events/app-events'
import type { Tx } from '@cloudphone/db/database'
import type { Sagas } from '@cloudphone/saga/engine'
import { findDevice } from '../db/device-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import type { LifecycleDefinitions } from './lifecycle-service.ts'

/** Starts the saga of an installation; the work itself would keep the queue waiting. Once per installation. */
export async function beginInstallation(
  tx: Tx<DevicesSchema>,
  parts: { sagas: Pick<Sagas, 'start'>; definitions: Pick<LifecycleDefinitions, 'app_installation'> },
  asked: PayloadOf<typeof AppInstallRequested>,
): Promise<void> {
  const device = await findDevice(tx, asked.deviceId)
  const { installationId, appId, deviceId, userId, packageName, allocationId, fence, sizeBytes, sha256 } =
    asked
  await parts.sagas.start(tx, {
    definition: parts.definitions.app_installation,
    businessKey: installationId,
    userId,
    ...(device !== undefined && { tenantId: device.tenant_id }),
    input: { installationId, appId, deviceId, userId, packageName, allocationId, fence, sizeBytes, sha256 },
  })
}
