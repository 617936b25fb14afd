import type { UsageRecord } from '@cloudphone/contracts/api/billing-api'
import { formatMicroUnits } from '@cloudphone/contracts/money'
import type { UsageRow, UsageSum } from '../domain/usage-service.ts'

export function viewOfUsage(row: UsageRow): UsageRecord {
  return {
    id: row.id,
    deviceId: row.device_id,
    userId: row.user_id,
    allocationId: row.allocation_id,
    startTime: row.start_time.toISOString(),
    endTime: row.end_time?.toISOString() ?? null,
    duration: row.duration,
    priceMicroPerHour: row.price_micro_per_hour,
    costMicro: row.cost_micro,
    cost: row.cost_micro === null ? null : formatMicroUnits(row.cost_micro),
    currency: row.currency,
    closedBy: row.closed_by,
  }
}

export function viewOfSum(sum: UsageSum) {
  return { ...sum, cost: formatMicroUnits(sum.costMicro), currency: 'CNY' as const }
}
