import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Change } from './domain/meter.ts'

/** One function per business fact: a log line and a counter. */
export interface BillingTelemetry {
  metered(change: Change): void
}

/** Reports to a log and to metrics. */
export function openTelemetry(log: Logger, metrics: Metrics): BillingTelemetry {
  const records = metrics.counter({
    name: 'billing_usage_records_total',
    help: 'Changes of usage records: opened, closed, and corrected when a fact came late.',
    labels: ['change'],
  })
  return {
    metered: (change) => {
      records.inc({ change: change.kind })
      log.info({ event: `usage.${change.kind}`, recordId: change.recordId, deviceId: change.deviceId })
    },
  }
}
