import type { Metrics } from '@cloudphone/observe/metrics'
import type { QueueStatistics } from './bus.ts'

/** What an adapter counts, by queue. The gauges ask the adapter at each scrape. */
export function busMetrics(metrics: Metrics, statistics: () => Promise<readonly QueueStatistics[]>) {
  const perQueue = (name: string, help: string) => metrics.counter({ name, help, labels: ['queue'] as const })
  metrics.gauge({
    name: 'bus_queue_deliveries',
    help: 'Deliveries in each queue by state.',
    labels: ['queue', 'state'] as const,
    async collect(gauge) {
      for (const { queue, ready, delayed, inFlight, dead } of await statistics()) {
        gauge.set({ queue, state: 'ready' }, ready)
        gauge.set({ queue, state: 'delayed' }, delayed)
        gauge.set({ queue, state: 'in_flight' }, inFlight)
        gauge.set({ queue, state: 'dead' }, dead)
      }
    },
  })
  return {
    retried: perQueue('bus_retries_total', 'Deliveries that failed and will be tried again.'),
    dead: perQueue('bus_dead_letters_total', 'Deliveries that became dead letters.'),
    dropped: perQueue('bus_dropped_total', 'Deliveries of informational queues that failed for good.'),
  }
}

export type BusCounts = ReturnType<typeof busMetrics>
