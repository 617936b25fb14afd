import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Currency } from '@cloudphone/contracts/money'
import type { ColumnType, Generated, Selectable } from 'kysely'
import type { ClosedBy } from '../domain/meter.ts'

type Audit = ColumnType<Date, never, never>

interface MetersTable {
  device_id: DeviceId
  created_at: Audit
}

interface UsageRecordsTable {
  id: string
  ordinal: ColumnType<number, never, never>
  device_id: DeviceId
  user_id: UserId
  tenant_id: TenantId
  allocation_id: AllocationId | null
  start_time: Date
  end_time: Date | null
  duration: number | null
  price_micro_per_hour: number
  cost_micro: number | null
  currency: Currency
  closed_by: ClosedBy | null
  opened_by_event: string
  closed_by_event: string | null
  created_at: Audit
  updated_at: Generated<Date>
}

interface LooseEndsTable {
  device_id: DeviceId
  at: Date
  closed_by: ClosedBy
  event_id: string
  created_at: Audit
}

/** The tables of the schema `billing`, and no other. */
export interface BillingSchema {
  meters: MetersTable
  usage_records: UsageRecordsTable
  loose_ends: LooseEndsTable
}

export type UsageRow = Selectable<UsageRecordsTable>
