import type { Metrics } from '@cloudphone/observe/metrics'

/** What a service counts of the events it hears: `scheduler_event_consumed_total` and so on. */
export function consumerMetrics(metrics: Metrics, service: string) {
  const labels = ['event_type'] as const
  const counter = (what: string, help: string) =>
    metrics.counter({ name: `${service}_event_${what}_total`, help, labels })
  return {
    consumed: counter('consumed', 'Events whose effect was committed.'),
    duplicate: counter('duplicate', 'Events that had been applied before.'),
    failed: counter('failed', 'Tries that failed and are repeated.'),
    refused: counter('refused', 'Events that were refused for good.'),
    duration: metrics.histogram({
      name: `${service}_event_processing_duration_seconds`,
      help: 'From the start of the transaction to its commit.',
      labels,
    }),
  }
}

export type ConsumerCounts = ReturnType<typeof consumerMetrics>
