import * as api from '@cloudphone/contracts/api/apps-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { AppService } from '../domain/app-service.ts'
import type { InstallationService } from '../domain/installation-service.ts'
import { viewOfApp } from './app.view.ts'

export function appRoutes(apps: AppService, installations: InstallationService): Binding[] {
  return [
    bind(api.UploadApp, async ({ caller, upload }) => {
      if (upload === undefined) throw new Error('uploadApp: the binder gives every upload')
      return viewOfApp(await apps.upload(caller, upload))
    }),
    bind(api.ListApps, async ({ caller, query: { limit, cursor } }) => {
      const rows = await apps.list(caller, { limit, before: decodeCursor(cursor) })
      return pageOf(rows, limit, viewOfApp, (row) => row.id)
    }),
    bind(api.GetApp, async ({ caller, params }) => viewOfApp(await apps.get(caller, params.appId))),
    bind(api.GetAppIcon, async ({ caller, params }) => ({
      ...(await apps.icon(caller, params.appId)),
      // An app's bytes never change, and so neither does its icon.
      headers: { 'cache-control': 'private, max-age=86400, immutable', 'x-content-type-options': 'nosniff' },
    })),
    bind(api.DeleteApp, async ({ caller, params }) => {
      await apps.delete(caller, params.appId)
      return undefined
    }),
    bind(api.GetApk, async ({ params, query }) => {
      if (query.installationId !== undefined) await installations.began(query.installationId, params.appId)
      return await apps.apk(params.appId)
    }),
  ]
}
