import { setTimeout as delay } from 'node:timers/promises'
import type { Admission } from '../adb/adbd.ts'
import type { FaultOperation, FaultRule } from './host-api.ts'
import { HostError } from './host-error.ts'

const DEFAULT_DELAY_MS = 1000

/** How long a rule waits, in ms. */
export function delayOf(rule: FaultRule): number {
  return rule.delayMs ?? DEFAULT_DELAY_MS
}

/**
 * Lets a fault loose on an operation before it acts: throws, or waits until the signal fires, or only takes longer.
 * What happens after the operation (crash, disappear) is not done here.
 */
export async function sufferFault(
  rule: FaultRule | undefined,
  op: FaultOperation,
  signal: AbortSignal,
): Promise<void> {
  if (signal.aborted) interrupted(op)
  if (rule?.kind === 'fail') {
    throw new HostError({
      code: `${op}_failed`,
      status: 500,
      message: `${op} failed: injected fault`,
      retryable: true,
    })
  }
  if (rule?.kind === 'too_many_requests') {
    throw new HostError({
      code: 'too_many_requests',
      status: 429,
      message: `too many ${op} requests: injected fault`,
      retryable: true,
      retryAfterMs: delayOf(rule),
    })
  }
  if (rule?.kind === 'slow') await delay(delayOf(rule), undefined, { signal }).catch(() => interrupted(op))
  if (rule?.kind === 'hang' || rule?.kind === 'stuck') await untilAborted(signal).then(() => interrupted(op))
}

/** The fault of op `adb`, as the daemon takes it. */
export function admissionOf(rule: FaultRule | undefined): Admission | undefined {
  switch (rule?.kind) {
    case 'fail':
      return { kind: 'refuse', delayMs: 0 }
    case 'slow':
    case 'hang':
    case 'flap':
      return { kind: rule.kind, delayMs: delayOf(rule) }
    default:
      return undefined
  }
}

function interrupted(op: FaultOperation): never {
  throw new HostError({
    code: `${op}_interrupted`,
    status: 409,
    message: `${op} was overtaken by a stop, a deletion or the end of the host`,
    retryable: true,
  })
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
