import type { AdbKey, Device } from '@cloudphone/contracts/api/devices-api'
import type { AdbKeyFacts, DeviceFacts } from '../domain/shown.ts'

/** What the API shows of a device. */
export function deviceView(row: DeviceFacts): Device {
  return {
    id: row.id,
    name: row.name,
    tenantId: row.tenant_id,
    userId: row.user_id,
    status: row.status,
    type: row.type,
    providerType: row.provider_type,
    cpuCores: row.cpu_cores,
    memoryMB: row.memory_mb,
    storageMB: row.storage_mb,
    resolution: row.resolution,
    dpi: row.dpi,
    androidVersion: row.android_version,
    containerName: row.container_name,
    adbHost: row.adb_host,
    adbPort: row.adb_port,
    allocationId: row.allocation_id,
    fence: row.fence,
    hygiene: row.hygiene,
    metadata: row.metadata,
    lastError: row.last_error,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    startedAt: row.started_at?.toISOString() ?? null,
  }
}

/** What the API shows of an adb key: not the key itself. */
export function adbKeyView(row: AdbKeyFacts): AdbKey {
  return {
    id: row.id,
    label: row.label,
    fingerprint: row.fingerprint,
    createdAt: row.created_at.toISOString(),
  }
}
