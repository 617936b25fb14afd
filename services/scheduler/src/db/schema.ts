import type { AllocationStatus } from '@cloudphone/contracts/api/scheduler-api'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { ColumnType, Generated, Selectable } from 'kysely'
import type { Availability } from '../domain/allocation.ts'

type Audit = ColumnType<Date, never, never>

interface DeviceMirrorTable {
  device_id: DeviceId
  name: string
  tenant_id: TenantId
  status: DeviceStatus
  availability: Availability
  fence: number
  version: number
  deleted: boolean
  wiped_fence: Generated<number>
  wipe_failed: Generated<boolean>
  available_since: Date
  created_at: Audit
  updated_at: Generated<Date>
}

interface UserMirrorTable {
  user_id: UserId
  tenant_id: TenantId
  created_at: Audit
}

interface AllocationsTable {
  id: AllocationId
  request_key: string
  tenant_id: TenantId
  user_id: UserId
  device_id: DeviceId
  device_name: string
  status: AllocationStatus
  fence: number
  release_fence: number
  duration_minutes: number
  grant_saga_id: string
  quota_reservation_id: Generated<string | null>
  release_saga_id: Generated<string | null>
  doomed_reason: Generated<ReleaseReason | null>
  doomed_detail: Generated<string | null>
  phone_lost_at: Generated<Date | null>
  reason: Generated<ReleaseReason | null>
  detail: Generated<string>
  version: Generated<number>
  created_at: Audit
  allocated_at: Generated<Date | null>
  expires_at: Generated<Date | null>
  released_at: Generated<Date | null>
}

interface QuotaReleasesTable {
  reservation_id: string
  created_at: Audit
}

/** The tables of the schema `scheduler`, and no other. */
export interface SchedulerSchema {
  device_mirror: DeviceMirrorTable
  user_mirror: UserMirrorTable
  allocations: AllocationsTable
  quota_releases: QuotaReleasesTable
}

export type AllocationRow = Selectable<AllocationsTable>
export type PhoneRow = Selectable<DeviceMirrorTable>
