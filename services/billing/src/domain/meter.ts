/* Terminology:
 * - run: one stretch of use of a phone: from its start to its stop (dedicated), or one allocation of it (pooled)
 * - record: the usage record of a run; its id follows from the run, so that every fact about a run finds the same record
 * - exact end: an end that names its run, such as device.stopped with its startedAt
 * - loose end: an end that only has a time, such as device.deleted: whatever ran before it ran no longer
 *
 * Facts come late, twice and in any order, and must make the same bill. So the end of a run is defined without an order:
 * the earliest of its exact ends, of the loose ends after its start, and of the next run's start. Every fact can only
 * move an end towards earlier, and the minimum does not care who came first.
 */
import { createHash } from 'node:crypto'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'

/** What says that a run ended. `superseded`: the next run began, and nothing better was heard yet. */
export type ClosedBy =
  | 'device.stopped'
  | 'device.failed'
  | 'device.deleted'
  | 'allocation.released'
  | 'superseded'

export interface Run {
  readonly deviceId: DeviceId
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly allocationId: AllocationId | null
  readonly startedAt: Date
}

export interface End {
  readonly at: Date
  readonly by: ClosedBy
}

/** What a fact did to a record. */
export interface Change {
  readonly kind: 'opened' | 'closed' | 'corrected'
  readonly recordId: string
  readonly deviceId: DeviceId
}

/**
 * The id of a run's record: a UUID (version 8, RFC 9562 section 5.8) made of what the run is. An allocation is one run;
 * a dedicated phone has one per start.
 */
export function recordIdOf(run: Pick<Run, 'deviceId' | 'allocationId' | 'startedAt'>): string {
  const which = run.allocationId ?? run.startedAt.toISOString()
  const hex = createHash('sha256').update(`cloudphone:usage:${run.deviceId}:${which}`).digest('hex')
  const variant = ((Number.parseInt(hex.slice(16, 18), 16) & 0x3f) | 0x80).toString(16)
  const parts = [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`]
  return [...parts, `${variant}${hex.slice(18, 20)}`, hex.slice(20, 32)].join('-')
}
