import type { PayloadOf } from '@cloudphone/contracts/event'
import { DeviceStopped } from '@cloudphone/contracts/events/device-events'
import { wholeSeconds } from './device.ts'
import { type Fact, fact } from './facts.ts'

/** Why a phone was stopped. */
export type StopReason = PayloadOf<typeof DeviceStopped>['reason']

/** `device.stopped`: metering ends at `now`. */
export function stopFact(startedAt: Date | null, now: Date, reason: StopReason): Fact {
  return fact(DeviceStopped, {
    startedAt: startedAt?.toISOString() ?? null,
    stoppedAt: now.toISOString(),
    duration: wholeSeconds(startedAt, now),
    reason,
  })
}
