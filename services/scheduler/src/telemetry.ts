import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import type { AllocationId, DeviceId, UserId } from '@cloudphone/contracts/id'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import { isAutomatic } from './domain/allocation.ts'

interface AllocationFact {
  allocationId: AllocationId
  deviceId: DeviceId
  userId: UserId
}

/** One function per business fact: a log line and a counter. */
export interface SchedulerTelemetry {
  requested(fact: AllocationFact & { sagaId: string }): void
  refused(fact: { userId: UserId; reason: 'no_device_available' }): void
  activated(fact: AllocationFact): void
  failed(fact: AllocationFact & { detail: string }): void
  releasing(fact: AllocationFact & { reason: ReleaseReason; detail: string }): void
  /** A session of quota could not be given back now. */
  sessionKept(fact: { reservationId: string; error: unknown }): void
  released(fact: AllocationFact & { reason: ReleaseReason; durationSeconds: number }): void
}

/** Reports to a log and to metrics. */
export function openTelemetry(log: Logger, metrics: Metrics): SchedulerTelemetry {
  const allocations = metrics.counter({
    name: 'scheduler_allocations_total',
    help: 'Allocations by what became of them.',
    labels: ['outcome'],
  })
  const automatic = metrics.counter({
    name: 'scheduler_auto_release_total',
    help: 'Phones that the platform itself took back, by reason.',
    labels: ['reason'],
  })
  return {
    requested: (fact) => {
      allocations.inc({ outcome: 'requested' })
      log.info({ event: 'allocation.requested', ...fact })
    },
    refused: (fact) => {
      allocations.inc({ outcome: 'refused' })
      log.info({ event: 'allocation.refused', ...fact })
    },
    activated: (fact) => {
      allocations.inc({ outcome: 'activated' })
      log.info({ event: 'allocation.activated', ...fact })
    },
    failed: (fact) => {
      allocations.inc({ outcome: 'failed' })
      log.warn({ event: 'allocation.failed', ...fact })
    },
    releasing: (fact) => {
      if (isAutomatic(fact.reason)) automatic.inc({ reason: fact.reason })
      log.info({ event: 'allocation.releasing', ...fact })
    },
    sessionKept: ({ reservationId, error }) =>
      log.warn({ event: 'quota.release_failed', reservationId, err: error }),
    released: (fact) => {
      allocations.inc({ outcome: 'released' })
      log.info({ event: 'allocation.released', ...fact })
    },
  }
}
