import * as api from '@cloudphone/contracts/api/devices-api'
import { decodeOrdinalCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { DeviceService } from '../domain/device-service.ts'
import type { LifecycleService } from '../domain/lifecycle-service.ts'
import type { PhoneOperations } from '../domain/phone-operations.ts'
import { deviceView } from './device.view.ts'

export interface DeviceDoors {
  readonly devices: DeviceService
  readonly lifecycle: LifecycleService
  readonly operations: Pick<PhoneOperations, 'screenshot'>
}

/** The routes about devices that users call. */
export function deviceRoutes({ devices, lifecycle, operations }: DeviceDoors): readonly Binding[] {
  return [
    bind(api.CreateDevice, async ({ caller, body, requestKey }) =>
      accepted(await devices.create(caller, body, requestKey)),
    ),
    bind(api.ListDevices, async ({ caller, query }) => {
      const rows = await devices.list(caller, query, decodeOrdinalCursor(query.cursor))
      return pageOf(rows, query.limit, deviceView, (row) => String(row.ordinal))
    }),
    bind(api.GetDevice, async ({ caller, params }) => deviceView(await devices.get(caller, params.deviceId))),
    bind(api.StartDevice, async ({ caller, params, requestKey }) =>
      accepted(await lifecycle.start({ caller, deviceId: params.deviceId, requestKey })),
    ),
    bind(api.StopDevice, async ({ caller, params, requestKey }) =>
      accepted(await lifecycle.stop({ caller, deviceId: params.deviceId, requestKey })),
    ),
    bind(api.ResetDevice, async ({ caller, params, requestKey }) =>
      accepted(await lifecycle.reset({ caller, deviceId: params.deviceId, requestKey })),
    ),
    bind(api.DeleteDevice, async ({ caller, params, requestKey }) =>
      accepted(await lifecycle.remove({ caller, deviceId: params.deviceId, requestKey })),
    ),
    bind(api.Screenshot, async ({ caller, params, signal }) => {
      const body = await operations.screenshot({ caller, deviceId: params.deviceId, signal })
      return { body, sizeBytes: body.length, headers: { 'cache-control': 'no-store' } }
    }),
  ]
}

function accepted({ sagaId, device }: Awaited<ReturnType<LifecycleService['start']>>) {
  return { sagaId, device: deviceView(device) }
}
