import type { Clock } from '@cloudphone/observe/clock'
import type { Deadlines } from './deadlines.ts'
import { type Failure, failureOf } from './errors.ts'

export type EffectOutcome =
  | { readonly kind: 'done'; readonly value: unknown }
  | { readonly kind: 'failed'; readonly error: Failure }
  | { readonly kind: 'deadline' }
  | { readonly kind: 'abandoned' }

export interface EffectOptions {
  readonly step: string
  readonly effect: (cut: Cut) => Promise<unknown>
  readonly timeoutMs: number
  /** Until the saga must turn back; null when it cannot any more. */
  readonly remainingMs: number | null
  /** The lease is lost or the process stops. */
  readonly given: AbortSignal
  readonly deadlines: Deadlines
  readonly realClock: Clock
}

/** Says that a try must end. */
export interface Cut {
  /** Made when an effect asks for it: most are over before they would. */
  readonly signal: AbortSignal
}

/** An aborted effect gets so long to end before it is left alone: two tries side by side are worse than a wait. */
const ABORT_GRACE_MS = 1_000

/**
 * Makes one try of an outside effect. A try that is cut off and yet succeeds counts as done: it is the truth.
 * What it did remains unknown when it is cut off; retries and the undo go by the same key.
 */
export async function tryEffect(options: EffectOptions): Promise<EffectOutcome> {
  const { step, timeoutMs, remainingMs, given, deadlines, realClock } = options
  const limitMs = Math.max(0, Math.min(timeoutMs, remainingMs ?? timeoutMs))
  const cut = new Cutting()
  const abandon = (): void => cut.off(given.reason)
  if (given.aborted) abandon()
  else given.addEventListener('abort', abandon)
  const takeBack = deadlines.after(limitMs, () =>
    cut.off(new Error(`${step} did not end within ${limitMs} ms`)),
  )
  try {
    const settled = begin(options.effect, cut)
    const first = await Promise.race([settled, cut.happened])
    if (first !== undefined && (first.kind === 'done' || !cut.isOff)) return first
    const second = first ?? (await withGrace(settled, realClock))
    if (second?.kind === 'done') return second
    if (given.aborted) return { kind: 'abandoned' }
    if (remainingMs !== null && remainingMs <= timeoutMs) return { kind: 'deadline' }
    const message = `${step} did not end within ${timeoutMs} ms`
    return { kind: 'failed', error: { message, code: 'timeout', retryable: true } }
  } finally {
    takeBack()
    given.removeEventListener('abort', abandon)
  }
}

class Cutting implements Cut {
  readonly #happened = Promise.withResolvers<undefined>()
  #controller: AbortController | undefined
  #reason: unknown
  isOff = false

  /** Resolves when the try is cut off. */
  get happened(): Promise<undefined> {
    return this.#happened.promise
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.isOff) this.#controller.abort(this.#reason)
    return this.#controller.signal
  }

  off(reason: unknown): void {
    if (this.isOff) return
    this.isOff = true
    this.#reason = reason
    this.#controller?.abort(reason)
    this.#happened.resolve(undefined)
  }
}

type Settled = Extract<EffectOutcome, { kind: 'done' | 'failed' }>

async function begin(effect: EffectOptions['effect'], cut: Cut): Promise<Settled> {
  try {
    return { kind: 'done', value: await effect(cut) }
  } catch (thrown) {
    return { kind: 'failed', error: failureOf(thrown) }
  }
}

async function withGrace(settled: Promise<Settled>, realClock: Clock): Promise<Settled | undefined> {
  const over = new AbortController()
  const grace = realClock.sleep(ABORT_GRACE_MS, over.signal).catch(() => undefined)
  try {
    return (await Promise.race([settled, grace])) ?? undefined
  } finally {
    over.abort()
  }
}
