import type { Installation } from '@cloudphone/contracts/api/apps-api'
import type {
  AllocationId,
  AppId,
  DeviceId,
  InstallationId,
  TenantId,
  UserId,
} from '@cloudphone/contracts/id'
import type { Generated, Selectable } from 'kysely'

interface AppsTable {
  id: AppId
  tenant_id: TenantId
  package_name: string
  version_code: number
  version_name: string
  label: string
  permissions: string[]
  min_sdk: number | null
  target_sdk: number | null
  size_bytes: number
  sha256: string
  has_icon: boolean
  uploaded_by: UserId
  created_at: Generated<Date>
}

interface InstallationsTable {
  id: InstallationId
  request_key: string
  tenant_id: TenantId
  app_id: AppId
  device_id: DeviceId
  user_id: UserId
  package_name: string
  allocation_id: AllocationId | null
  fence: number
  status: Generated<Installation['status']>
  reason: string | null
  version: Generated<number>
  requested_at: Generated<Date>
  ended_at: Date | null
}

/** The tables of the schema `apps`. */
export interface AppsSchema {
  apps: AppsTable
  installations: InstallationsTable
}

export type AppRow = Selectable<AppsTable>
export type InstallationRow = Selectable<InstallationsTable>
