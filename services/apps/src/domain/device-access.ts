import { type Caller, may } from '@cloudphone/contracts/access'
import { CheckAccess } from '@cloudphone/contracts/api/devices-api'
import type { DeviceId } from '@cloudphone/contracts/id'
import type { ResultOf } from '@cloudphone/contracts/route'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { problems } from '../errors.ts'

/** Under which right a caller uses a phone: what the devices service said, and will check again. */
export type DeviceAccess = ResultOf<typeof CheckAccess>

/**
 * The caller's right to a phone that runs.
 * @throws ProblemError of the devices service (`device_not_found`, `device_forbidden`, `not_allocated`, `service_unavailable`), or
 * `device_not_running`.
 */
export async function accessRunning(
  client: ServiceClient,
  caller: Caller,
  deviceId: DeviceId,
): Promise<DeviceAccess> {
  const access = await client.call(CheckAccess, {
    params: { deviceId },
    query: {
      userId: caller.userId,
      tenantId: caller.tenantId,
      any: may(caller, 'devices:any') ? 'true' : 'false',
    },
  })
  const { status } = access.device
  if (status !== 'RUNNING') throw problems.device_not_running({ deviceId, status })
  return access
}
