import * as api from '@cloudphone/contracts/api/devices-api'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { HolderService } from '../domain/holder-service.ts'
import { deviceView } from './device.view.ts'

/** The routes that other services call. */
export function internalRoutes(doors: {
  holders: HolderService
  stopForShutdown: () => Promise<number>
}): readonly Binding[] {
  const { holders, stopForShutdown } = doors
  return [
    bind(api.SetHolder, async ({ params, body }) => deviceView(await holders.set(params.deviceId, body))),
    bind(api.CheckAccess, async ({ params, query }) => {
      const row = await holders.check(params.deviceId, query)
      return { device: deviceView(row), allocationId: row.allocation_id, fence: row.fence }
    }),
    bind(api.StopForShutdown, async () => ({ stopped: await stopForShutdown() })),
  ]
}
