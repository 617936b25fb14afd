import type { Metrics } from '@cloudphone/observe/metrics'
import type { OutboxStatistics } from './outbox.ts'

/** What a relay counts. Gauges ask the database at each scrape. */
export function relayMetrics(metrics: Metrics, statistics: () => Promise<OutboxStatistics>) {
  // One question per scrape for all three gauges: they are collected together.
  let asked: Promise<OutboxStatistics> | undefined
  const once = (): Promise<OutboxStatistics> => {
    asked ??= statistics().finally(() => {
      asked = undefined
    })
    return asked
  }
  const gauge = (name: string, help: string, pick: (statistics: OutboxStatistics) => number): void => {
    metrics.gauge({ name, help, collect: async (self) => self.set(pick(await once())) })
  }
  gauge('outbox_pending', 'Events that wait for their first publication.', ({ pending }) => pending)
  gauge('outbox_failed', 'Events whose last publication failed.', ({ failed }) => failed)
  gauge('outbox_lag_seconds', 'Age of the oldest unpublished event.', ({ lagSeconds }) => lagSeconds)
  const perType = (name: string, help: string) =>
    metrics.counter({ name, help, labels: ['event_type'] as const })
  return {
    published: perType('outbox_published_total', 'Events that the bus has taken.'),
    failed: perType('outbox_publish_failures_total', 'Publications that the bus refused.'),
    unroutable: perType(
      'outbox_unroutable_total',
      'Publications for which a queue was missing: a topology fault.',
    ),
    refused: metrics.counter({
      name: 'outbox_stale_marks_total',
      help: 'Marks refused because the lane had changed hands.',
    }),
    busErrors: metrics.counter({
      name: 'outbox_bus_errors_total',
      help: 'Batches that did not reach the bus at all.',
    }),
  }
}
