import { currentSpan, inSpan, type Tracer } from '@cloudphone/observe/trace'
import type { LogEntry } from './decide.ts'
import type { SagaRow } from './row.ts'

/**
 * Makes one try of a step a span, its checkpoint included, under the trace in which the saga was started: what the step
 * calls and writes goes on under the span.
 */
export function inTrySpan<T>(
  tracer: Tracer,
  { sagaId, type, direction, attempt, traceparent }: SagaRow,
  step: string,
  work: () => Promise<T>,
): Promise<T> {
  const facts = {
    name: `saga ${type} ${step}${direction === 'undo' ? '.undo' : ''}`,
    kind: 'internal',
    parent: traceparent ?? undefined,
    attributes: {
      'saga.type': type,
      'saga.id': sagaId,
      'saga.step': step,
      'saga.direction': direction,
      'saga.attempt': attempt + 1,
    },
  } as const
  return inSpan(tracer, facts, work)
}

/** Tells the span of a try what came of it. Absent from one that says nothing against its step, such as a lost lease. */
export function noteOutcome(entry: LogEntry | null): void {
  if (entry === null) return
  const span = currentSpan()
  span?.note({ 'saga.outcome': entry.status })
  if (entry.error !== null) span?.fail(entry.error, entry.status)
}

/** A trace for a saga that nothing has asked for, such as one of a loop's; undefined where no spans are made. */
export function startingTrace(tracer: Tracer | undefined, { type }: { type: string }): string | undefined {
  const attributes = { 'saga.type': type }
  const span = tracer?.start({ name: `saga ${type} start`, kind: 'internal', parent: undefined, attributes })
  span?.end()
  return span?.traceparent
}
