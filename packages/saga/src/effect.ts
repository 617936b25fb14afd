import type { Clock } from '@cloudphone/observe/clock'
import { type Failure, failureOf } from './errors.ts'

export type EffectOutcome =
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly error: Failure }
  | { readonly kind: 'deadline' }
  | { readonly kind: 'abandoned' }

export interface EffectOptions {
  readonly step: string
  readonly effect: (signal: AbortSignal) => Promise<unknown>
  readonly timeoutMs: number
  /** Until the saga must turn back; null when it cannot any more. */
  readonly remainingMs: number | null
  /** The lease is lost or the process stops. */
  readonly given: AbortSignal
  readonly clock: Clock
  readonly realClock: Clock
}

/** An aborted effect gets so long to end before it is left alone: two tries side by side are worse than a wait. */
const ABORT_GRACE_MS = 1_000

/**
 * Makes one try of an outside effect. A try that is cut off and yet succeeds counts as done: it is the truth.
 * What it did remains unknown when it is cut off; retries and the undo go by the same key.
 */
export async function tryEffect(options: EffectOptions): Promise<EffectOutcome> {
  const { step, timeoutMs, remainingMs, given, clock, realClock } = options
  const limitMs = Math.max(0, Math.min(timeoutMs, remainingMs ?? timeoutMs))
  const cut = new AbortController()
  const over = new AbortController()
  const signal = AbortSignal.any([given, cut.signal])
  clock.sleep(limitMs, over.signal).then(
    () => cut.abort(new Error(`${step} did not end within ${limitMs} ms`)),
    () => undefined, // it ended in time
  )
  try {
    const settled = begin(options.effect, signal)
    const first = await Promise.race([settled, aborted(signal, over.signal)])
    if (first !== undefined && (first.kind === 'done' || !signal.aborted)) return first
    const grace = realClock.sleep(ABORT_GRACE_MS, over.signal).catch(() => undefined)
    const second = first ?? (await Promise.race([settled, grace]))
    if (second?.kind === 'done') return second
    if (given.aborted) return { kind: 'abandoned' }
    if (remainingMs !== null && remainingMs <= timeoutMs) return { kind: 'deadline' }
    const message = `${step} did not end within ${timeoutMs} ms`
    return { kind: 'failed', error: { message, code: 'timeout', retryable: true } }
  } finally {
    over.abort()
  }
}

async function begin(
  effect: EffectOptions['effect'],
  signal: AbortSignal,
): Promise<Extract<EffectOutcome, { kind: 'done' | 'failed' }>> {
  try {
    return { kind: 'done', value: await effect(signal) }
  } catch (thrown) {
    return { kind: 'failed', error: failureOf(thrown) }
  }
}

/** Resolves with undefined when `signal` fires; its listener goes with `over`. */
function aborted(signal: AbortSignal, over: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(undefined)
    signal.addEventListener('abort', () => resolve(undefined), { once: true, signal: over })
  })
}
