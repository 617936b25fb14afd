import type { DeviceStatus, Hygiene, ProviderType } from '@cloudphone/contracts/device'
import type { AllocationId, DeviceId, NodeId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { ColumnType, Generated, GeneratedAlways, JSONColumnType, Selectable } from 'kysely'

type Json = JSONColumnType<Record<string, unknown>>
type NullableJson = ColumnType<Record<string, unknown> | null, string | null, string | null>

interface NodesTable {
  id: NodeId
  name: string
  provider_type: ProviderType
  reach_address: string
  cpu_total: number
  memory_total_mb: number
  phones_total: number
  cpu_used: Generated<number>
  memory_used_mb: Generated<number>
  phones_used: Generated<number>
  cordoned: Generated<boolean>
  created_at: Generated<Date>
}

interface DevicesTable {
  id: DeviceId
  ordinal: GeneratedAlways<number>
  tenant_id: TenantId
  user_id: UserId | null
  created_by: UserId
  creation_saga_id: string
  name: string
  status: DeviceStatus
  type: 'phone' | 'tablet'
  provider_type: ProviderType
  cpu_cores: number
  memory_mb: number
  storage_mb: number
  resolution: string
  dpi: number
  android_version: string
  provider_specific_config: Json
  metadata: Json
  node_id: NodeId | null
  external_id: string | null
  container_id: string | null
  container_name: string | null
  connection_info: NullableJson
  provider_config: NullableJson
  adb_host: string | null
  adb_port: number | null
  announced: Generated<boolean>
  allocation_id: AllocationId | null
  holder_user_id: UserId | null
  fence: Generated<number>
  hygiene: Generated<Hygiene>
  keys_wanted: Generated<number>
  keys_applied: Generated<number>
  keys_claim: string | null
  keys_claim_until: Date | null
  version: Generated<number>
  generation: Generated<number>
  restart_attempts: Generated<number>
  restart_at: Date | null
  resume_on_start: Generated<boolean>
  last_error: string | null
  last_active_at: Date | null
  started_at: Date | null
  created_at: Generated<Date>
  updated_at: Generated<Date>
}

interface DeviceTombstonesTable {
  id: DeviceId
  saga_id: string
  reason: string
  kind: 'creation_failed' | 'deleted'
  tenant_id: TenantId
  user_id: UserId | null
  deleted_at: Generated<Date>
}

interface NodeHoldingsTable {
  device_id: DeviceId
  node_id: NodeId
  cpu: number
  memory_mb: number
}

interface PortAllocationsTable {
  device_id: DeviceId
  node_id: NodeId
  adb_port: number
  webrtc_port: number | null
  scrcpy_port: number | null
  created_at: Generated<Date>
}

interface PortHoldsTable {
  node_id: NodeId
  port: number
  kind: 'cooldown' | 'blocked'
  until: Date
  reason: string
}

interface AdbKeysTable {
  id: string
  ordinal: GeneratedAlways<number>
  user_id: UserId
  public_key: string
  label: string
  fingerprint: string
  created_at: Generated<Date>
}

interface PlatformAdbKeyTable {
  only_one: Generated<boolean>
  private_key: string
  public_key: string
  created_at: Generated<Date>
}

interface QuotaReleasesTable {
  device_id: DeviceId
  created_at: Generated<Date>
}

interface QuotaGrantsTable {
  device_id: DeviceId
  user_id: UserId
  slot: number
  created_at: Generated<Date>
  refused_at: Generated<Date | null>
}

interface DeviceWipesTable {
  saga_id: string
  device_id: DeviceId
  tenant_id: TenantId
  fence: number
  reason: 'handover' | 'reset'
  method: string
  erased: number
  residue: string[]
  wiped_at: Generated<Date>
}

/** The tables of schema `devices` that are this service's own. */
export interface DevicesSchema {
  nodes: NodesTable
  devices: DevicesTable
  device_tombstones: DeviceTombstonesTable
  node_holdings: NodeHoldingsTable
  port_allocations: PortAllocationsTable
  port_holds: PortHoldsTable
  adb_keys: AdbKeysTable
  platform_adb_key: PlatformAdbKeyTable
  quota_releases: QuotaReleasesTable
  quota_grants: QuotaGrantsTable
  device_wipes: DeviceWipesTable
}

export type DeviceRow = Selectable<DevicesTable>
export type NodeRow = Selectable<NodesTable>
export type TombstoneRow = Selectable<DeviceTombstonesTable>
export type AdbKeyRow = Selectable<AdbKeysTable>
