import { DeviceStopped } from '@cloudphone/contracts/events/device-events'
import { wholeSeconds } from './device.ts'
import { type Fact, fact } from './facts.ts'

/** `device.stopped`: metering ends at `now`. */
export function stopFact(
  startedAt: Date | null,
  now: Date,
  reason: 'user' | 'operator' | 'shutdown' | 'deletion',
): Fact {
  return fact(DeviceStopped, {
    startedAt: startedAt?.toISOString() ?? null,
    stoppedAt: now.toISOString(),
    duration: wholeSeconds(startedAt, now),
    reason,
  })
}
