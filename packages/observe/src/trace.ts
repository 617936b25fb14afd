import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'

/* Terminology:
 * - trace: all that one request caused, wherever it ran; it goes with every call, saga row and event as a traceparent
 * - span: one piece of that work with a beginning and an end; the span that caused it is its parent
 * - tracer: makes spans and hands them to a collector. There is none unless the operator names a collector: then a
 *   traceparent is only carried on as it came, and no span exists
 */

/** A W3C trace context header: `00-<trace id>-<parent id>-<flags>`. */
export type Traceparent = string

export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>

export interface SpanFacts {
  /** Of few different values: routes and steps, never ids. */
  readonly name: string
  readonly kind: 'server' | 'client' | 'producer' | 'consumer' | 'internal'
  /** What caused it. Absent or malformed: nothing that is known, and a new trace begins. */
  readonly parent: Traceparent | undefined
  readonly attributes?: SpanAttributes
}

/** A piece of work under way. After `end` nothing changes it any more. */
export interface Span {
  /** Goes with whatever this work causes. */
  readonly traceparent: Traceparent
  /** False: of a trace that nobody takes, so that nothing is lost by not telling it anything. */
  readonly isRecording: boolean
  note(attributes: SpanAttributes): void
  /** Marks it failed; `type` is of few different values, and else the error's code or name. */
  fail(error: unknown, type?: string): void
  end(): void
}

/** Makes the spans of one service. Never throws and never waits. */
export interface Tracer {
  start(facts: SpanFacts): Span
}

const pattern = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
// To be read as version 00 up to the flags. @see https://www.w3.org/TR/trace-context/#versioning-of-traceparent
const laterPattern = /^(?!00|ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?$/
const noTraceId = '0'.repeat(32)
const noSpanId = '0'.repeat(16)
const current = new AsyncLocalStorage<Traceparent | Span>()

/** The trace that the running code belongs to; undefined outside of any. */
export function currentTraceparent(): Traceparent | undefined {
  const store = current.getStore()
  return typeof store === 'object' ? store.traceparent : store
}

/** The span that the running code belongs to; undefined outside of any, and always where nothing is exported. */
export function currentSpan(): Span | undefined {
  const store = current.getStore()
  return typeof store === 'object' ? store : undefined
}

/** Runs `work` inside a trace: the given one when it is well-formed, else a new one. */
export function inTrace<T>(traceparent: string | undefined, work: () => T): T {
  return current.run(wellFormed(traceparent) ?? newTraceparent(), work)
}

/** Runs `work` inside a span that somebody else ends. */
export function within<T>(span: Span, work: () => T): T {
  return current.run(span, work)
}

/**
 * Runs `work` as a span of its own, which ends with it, and fails with it. Where it may run thousands of times a second,
 * ask first whether there is a tracer, so that without one not even the facts are put together.
 */
export async function inSpan<T>(
  tracer: Tracer | undefined,
  facts: SpanFacts,
  work: (span: Span | undefined) => Promise<T>,
): Promise<T> {
  if (tracer === undefined) return await work(undefined)
  const span = tracer.start(facts)
  try {
    return await current.run(span, work, span)
  } catch (error) {
    span.fail(error)
    throw error
  } finally {
    span.end()
  }
}

/** A traceparent as version 00; undefined for one that is malformed. */
export function wellFormed(traceparent: string | undefined): Traceparent | undefined {
  if (traceparent === undefined) return undefined
  const isPlain = pattern.test(traceparent)
  if (!isPlain && !laterPattern.test(traceparent)) return undefined
  if (traceparent.startsWith(noTraceId, 3) || traceparent.startsWith(noSpanId, 36)) return undefined
  return isPlain ? traceparent : `00${traceparent.slice(2, 55)}`
}

/** Starts a trace of its own, sampled unless it is said. @see https://www.w3.org/TR/trace-context/#traceparent-header */
export function newTraceparent(flags: '00' | '01' = '01'): Traceparent {
  // Node keeps random bytes for UUIDs in store: this takes a tenth of the time of two `randomBytes` (7 us).
  const traceId = randomUUID().replaceAll('-', '')
  const spare = randomUUID()
  return `00-${traceId}-${spare.slice(0, 8)}${spare.slice(28)}-${flags}`
}
