import type { Installation } from '@cloudphone/contracts/api/apps-api'
import type { InstallationRow } from '../domain/installation-service.ts'

/** An installation as the API shows it. */
export function viewOfInstallation(row: InstallationRow): Installation {
  return {
    installationId: row.id,
    appId: row.app_id,
    deviceId: row.device_id,
    userId: row.user_id,
    status: row.status,
    reason: row.reason,
    requestedAt: row.requested_at.toISOString(),
    endedAt: row.ended_at?.toISOString() ?? null,
  }
}
