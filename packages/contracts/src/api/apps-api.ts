import { z } from 'zod'
import { AppId, DeviceId, InstallationId, UserId } from '../id.ts'
import { bytes, item, list, none, PageQuery, route } from '../route.ts'

export const App = z.object({
  id: AppId,
  packageName: z.string(),
  versionCode: z.int(),
  versionName: z.string(),
  label: z.string(),
  permissions: z.array(z.string()),
  minSdk: z.int().nullable(),
  targetSdk: z.int().nullable(),
  sizeBytes: z.int(),
  sha256: z.string(),
  hasIcon: z.boolean(),
  uploadedBy: UserId,
  createdAt: z.iso.datetime(),
})
export type App = z.infer<typeof App>

export const Installation = z.object({
  installationId: InstallationId,
  appId: AppId,
  deviceId: DeviceId,
  userId: UserId,
  status: z.enum(['pending', 'installing', 'installed', 'failed']),
  reason: z.string().nullable(),
  requestedAt: z.iso.datetime(),
  endedAt: z.iso.datetime().nullable(),
})
export type Installation = z.infer<typeof Installation>

const ByApp = z.strictObject({ appId: AppId })

export const UploadApp = route({
  name: 'uploadApp',
  service: 'apps',
  method: 'POST',
  path: '/api/apps',
  summary: 'Upload an APK (form field `file`, 2 GiB at most). The same bytes again return the same app.',
  access: { kind: 'user', permission: 'apps:use' },
  audit: 'app.upload',
  upload: 'file',
  answer: item(App, 201),
  problems: [
    'apk_empty',
    'apk_not_zip',
    'apk_no_manifest',
    'apk_malformed',
    'apk_zip_bomb',
    'apk_too_large',
    'file_missing',
  ],
})

export const ListApps = route({
  name: 'listApps',
  service: 'apps',
  method: 'GET',
  path: '/api/apps',
  summary: 'The apps of the caller’s tenant, newest first.',
  access: { kind: 'user', permission: 'apps:read' },
  query: PageQuery,
  answer: list(App),
})

export const GetApp = route({
  name: 'getApp',
  service: 'apps',
  method: 'GET',
  path: '/api/apps/:appId',
  summary: 'One app.',
  access: { kind: 'user', permission: 'apps:read' },
  params: ByApp,
  answer: item(App),
  problems: ['app_not_found'],
})

export const GetAppIcon = route({
  name: 'getAppIcon',
  service: 'apps',
  method: 'GET',
  path: '/api/apps/:appId/icon',
  summary: 'The app’s icon.',
  access: { kind: 'user', permission: 'apps:read' },
  params: ByApp,
  answer: bytes('image/png'),
  problems: ['app_not_found', 'icon_not_found'],
})

export const DeleteApp = route({
  name: 'deleteApp',
  service: 'apps',
  method: 'DELETE',
  path: '/api/apps/:appId',
  summary: 'Delete an app from the store; phones that have it keep it.',
  access: { kind: 'user', permission: 'apps:use' },
  audit: 'app.delete',
  params: ByApp,
  answer: none,
  problems: ['app_not_found', 'app_in_use'],
})

export const InstallApp = route({
  name: 'installApp',
  service: 'apps',
  method: 'POST',
  path: '/api/apps/:appId/install',
  summary: 'Install an app on a phone. Answers at once.',
  access: { kind: 'user', permission: 'apps:use' },
  audit: 'app.install',
  params: ByApp,
  body: z.strictObject({ deviceId: DeviceId }),
  answer: item(Installation, 202),
  problems: ['app_not_found', 'device_not_found', 'device_forbidden', 'not_allocated', 'device_not_running'],
})

export const GetInstallation = route({
  name: 'getInstallation',
  service: 'apps',
  method: 'GET',
  path: '/api/installations/:installationId',
  summary: 'One installation; `wait` (seconds) holds the answer until it has ended.',
  access: { kind: 'user', permission: 'apps:read' },
  params: z.strictObject({ installationId: InstallationId }),
  query: z.strictObject({ wait: z.coerce.number().int().min(0).max(60).default(0) }),
  answer: item(Installation),
  problems: ['installation_not_found'],
})

export const ListInstallations = route({
  name: 'listInstallations',
  service: 'apps',
  method: 'GET',
  path: '/api/installations',
  summary: 'Installations, newest first.',
  access: { kind: 'user', permission: 'apps:read' },
  query: PageQuery.extend({ deviceId: DeviceId.optional() }),
  answer: list(Installation),
})

/* Between services. */

export const GetApk = route({
  name: 'getApk',
  service: 'apps',
  method: 'GET',
  path: '/internal/apps/:appId/apk',
  summary: 'The bytes of an app, for the devices service.',
  access: { kind: 'service' },
  params: ByApp,
  /** The installation that they are for: it is `installing` from now on. */
  query: z.strictObject({ installationId: InstallationId.optional() }),
  answer: bytes('application/vnd.android.package-archive'),
  problems: ['app_not_found', 'apk_lost'],
})
