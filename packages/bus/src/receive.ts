import type { Database } from '@cloudphone/db/database'
import { isUnavailable } from '@cloudphone/db/errors'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import { inTrace } from '@cloudphone/observe/trace'
import { type Accepted, accept } from './accept.ts'
import type { Delivery, Verdict } from './bus.ts'
import type { ConsumerCounts } from './consumer-metrics.ts'
import type { Route } from './handler.ts'
import { enterInbox } from './inbox.ts'

export interface ReceiveOptions<Schema> {
  readonly queue: string
  readonly database: Database<Schema>
  readonly handlers: Route<Schema>
  readonly log: Logger
  readonly counts: ConsumerCounts
  readonly crash: CrashPoints
  readonly clock: Clock
  /** From then on nothing waits for a database that is away. */
  readonly closing: AbortSignal
}

const FIRST_BACKOFF_MS = 100
const MAX_BACKOFF_MS = 5_000

/** The consumer's side of a queue: what `Bus.consume` calls for a delivery that goes alone. */
export function receive<Schema>(options: ReceiveOptions<Schema>): (delivery: Delivery) => Promise<Verdict> {
  return (delivery) => inTrace(delivery.envelope.traceparent, () => receiveOne(options, delivery))
}

async function receiveOne<Schema>(options: ReceiveOptions<Schema>, { envelope }: Delivery): Promise<Verdict> {
  const { handlers, counts, clock } = options
  const labels = { event_type: envelope.type }
  const accepted = accept(handlers, envelope)
  if ('refusal' in accepted) {
    // Unknown names would let a stranger make labels at will.
    counts.refused.inc({ event_type: handlers.has(envelope.type) ? envelope.type : 'unknown' })
    return { verdict: 'dead', error: new Error(accepted.refusal) }
  }
  try {
    return await whenReachable(options, async () => {
      await options.crash.reach('consumer.before_tx')
      const startedAtMs = clock.monotonicMs()
      const applied = await apply(options, accepted)
      await options.crash.reach('consumer.after_commit')
      counts.duration.observe(labels, (clock.monotonicMs() - startedAtMs) / 1_000)
      if (applied) counts.consumed.inc(labels)
      else counts.duplicate.inc(labels)
      return { verdict: 'done' }
    })
  } catch (error) {
    if (isUnavailable(error)) return { verdict: 'release' }
    return failed(
      error,
      () => counts.failed.inc(labels),
      () => counts.refused.inc(labels),
    )
  }
}

/**
 * Runs `work` again and again while the database is away, which is not the event's fault: ten minutes without it must not
 * fill the dead letters. Once the consumers close, that error is the caller's.
 */
export async function whenReachable<Schema, Result>(
  { clock, closing, log, queue }: ReceiveOptions<Schema>,
  work: () => Promise<Result>,
): Promise<Result> {
  for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)) {
    try {
      return await work()
    } catch (error) {
      if (!isUnavailable(error) || closing.aborted) throw error
      log.warn({ event: 'consumer.database_away', queue, err: error })
      await clock.sleep(backoffMs, closing).catch(() => undefined)
    }
  }
}

/** Effect and inbox row in one transaction. False when the event had been applied before. */
function apply<Schema>(
  { database, queue, crash }: ReceiveOptions<Schema>,
  { event, eventTime, handler }: Accepted<Schema>,
): Promise<boolean> {
  return database.transaction(async (tx) => {
    if (!(await enterInbox(tx, { consumer: queue, eventId: event.id, eventTime }))) return false
    await handler.handle(tx, event)
    await crash.reach('consumer.in_tx')
    return true
  })
}

function failed(thrown: unknown, onRetry: () => void, onRefusal: () => void): Verdict {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  if ('retryable' in error && error.retryable === false) {
    onRefusal()
    return { verdict: 'dead', error }
  }
  onRetry()
  return { verdict: 'retry', error }
}
