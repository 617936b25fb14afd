import * as api from '@cloudphone/contracts/api/apps-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { AppService } from '../domain/app-service.ts'
import type { InstallationService } from '../domain/installation-service.ts'
import { viewOfInstallation } from './installation.view.ts'

export function installationRoutes(apps: AppService, installations: InstallationService): Binding[] {
  return [
    bind(api.InstallApp, async ({ caller, params, body, requestKey }) => {
      const app = await apps.get(caller, params.appId)
      return viewOfInstallation(
        await installations.install(caller, app, { deviceId: body.deviceId, requestKey }),
      )
    }),
    bind(api.GetInstallation, async ({ caller, params, query }) =>
      viewOfInstallation(await installations.get(caller, params.installationId, query.wait * 1000)),
    ),
    bind(api.ListInstallations, async ({ caller, query: { limit, cursor, deviceId } }) => {
      const rows = await installations.list(caller, { limit, deviceId, before: decodeCursor(cursor) })
      return pageOf(rows, limit, viewOfInstallation, (row) => row.id)
    }),
  ]
}
