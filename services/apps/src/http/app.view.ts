import type { App } from '@cloudphone/contracts/api/apps-api'
import type { AppRow } from '../domain/app-service.ts'

/** A stored app as the API shows it. */
export function viewOfApp(row: AppRow): App {
  return {
    id: row.id,
    packageName: row.package_name,
    versionCode: row.version_code,
    versionName: row.version_name,
    label: row.label,
    permissions: row.permissions,
    minSdk: row.min_sdk,
    targetSdk: row.target_sdk,
    sizeBytes: row.size_bytes,
    sha256: row.sha256,
    hasIcon: row.has_icon,
    uploadedBy: row.uploaded_by,
    createdAt: row.created_at.toISOString(),
  }
}
