import type { DeviceRow } from '../db/schema.ts'
import type { PhoneSpec } from '../providers/provider.ts'
import { containerName } from './device.ts'

/** The label by which we find what is ours at a provider that others may use too. */
export function nodeLabel(nodeId: string): Record<string, string> {
  return { 'cloudphone.node': nodeId }
}

/** What the provider should make for a device. */
export function phoneSpec(
  row: DeviceRow,
  place: { nodeId: string; adbPort: number; adbKeys: readonly string[] },
): PhoneSpec {
  const [width = 1080, height = 1920] = row.resolution.split('x').map(Number)
  return {
    deviceId: row.id,
    name: containerName(row.name, row.id),
    labels: {
      ...nodeLabel(place.nodeId),
      'cloudphone.device': row.id,
      'cloudphone.tenant': row.tenant_id,
    },
    width,
    height,
    dpi: row.dpi,
    androidVersion: row.android_version,
    tablet: row.type === 'tablet',
    cpuCores: row.cpu_cores,
    memoryMb: row.memory_mb,
    storageMb: row.storage_mb,
    adbPort: place.adbPort,
    adbKeys: place.adbKeys,
    specific: row.provider_specific_config,
  }
}
