import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { SagaStatus } from './definition.ts'
import type { SagaRow } from './row.ts'

/** Each fact about sagas, reported once: a log line and a number. */
export interface Telemetry {
  started(type: string): void
  ended(row: SagaRow): void
  stepTook(row: SagaRow, step: string, tookMs: number): void
  failed(row: SagaRow, step: string, error: string | null): void
  alarmed(row: SagaRow, step: string, alarm: 'stuck' | 'quarantined' | 'no_return'): void
}

export function openTelemetry({
  log,
  metrics,
  countByStatus,
}: {
  log: Logger
  metrics: Metrics
  countByStatus: () => Promise<ReadonlyMap<SagaStatus, number>>
}): Telemetry {
  const startedTotal = metrics.counter({
    name: 'saga_started_total',
    help: 'Sagas started.',
    labels: ['type'],
  })
  const endedTotal = metrics.counter({
    name: 'saga_ended_total',
    help: 'Sagas ended by this instance.',
    labels: ['type', 'status'],
  })
  const alarms = metrics.counter({
    name: 'saga_alarms_total',
    help: 'Failures that need an operator’s eye: a stuck undo, a quarantine, a step past the point of no return.',
    labels: ['type', 'alarm'],
  })
  const duration = metrics.histogram({
    name: 'saga_step_duration_seconds',
    help: 'Time of a try of a step, its checkpoint included; undos as STEP.undo.',
    labels: ['type', 'step'],
    buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300],
  })
  const gaugeOf = (name: string, help: string, statuses: readonly SagaStatus[]): void => {
    metrics.gauge({
      name,
      help,
      async collect(gauge) {
        const counts = await countByStatus().catch((error: unknown) => {
          log.warn({ event: 'saga.count_failed', err: error })
        })
        // A database that is away leaves the last known figure rather than fail the whole scrape.
        if (counts) gauge.set(statuses.reduce((sum, status) => sum + (counts.get(status) ?? 0), 0))
      },
    })
  }
  gaugeOf('saga_running', 'Live sagas on their way.', ['RUNNING', 'COMPENSATING'])
  gaugeOf('saga_stuck', 'Sagas that wait for an operator.', ['COMPENSATION_STUCK', 'QUARANTINED'])

  const ids = ({ sagaId, type }: SagaRow) => ({ sagaId, type })
  return {
    started: (type) => startedTotal.inc({ type }),
    ended(row) {
      endedTotal.inc({ type: row.type, status: row.status })
      log.info({ event: 'saga.ended', ...ids(row), status: row.status, error: row.errorMessage })
    },
    stepTook: ({ type, direction }, step, tookMs) =>
      duration.observe({ type, step: direction === 'undo' ? `${step}.undo` : step }, tookMs / 1_000),
    failed: (row, step, error) =>
      log.warn({ event: 'saga.try_failed', ...ids(row), step, direction: row.direction, error }),
    alarmed(row, step, alarm) {
      alarms.inc({ type: row.type, alarm })
      log.error({ event: `saga.${alarm}`, ...ids(row), step, attempt: row.attempt })
    },
  }
}
