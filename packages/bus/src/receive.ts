import type { EventDefinition, EventEnvelope, ReceivedEvent } from '@cloudphone/contracts/event'
import { timeOfId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { isUnavailable } from '@cloudphone/db/errors'
import type { Clock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import { inTrace } from '@cloudphone/observe/trace'
import type { Delivery, Verdict } from './bus.ts'
import type { ConsumerCounts } from './consumer-metrics.ts'
import type { EventHandler, Route } from './handler.ts'
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

/** The consumer's side of a queue: what `Bus.consume` calls for each delivery. */
export function receive<Schema>(options: ReceiveOptions<Schema>): (delivery: Delivery) => Promise<Verdict> {
  return (delivery) => inTrace(delivery.envelope.traceparent, () => receiveOne(options, delivery))
}

async function receiveOne<Schema>(options: ReceiveOptions<Schema>, { envelope }: Delivery): Promise<Verdict> {
  const { handlers, counts, clock, queue, log, closing } = options
  const labels = { event_type: envelope.type }
  const accepted = accept(handlers, envelope)
  if ('refusal' in accepted) {
    // Unknown names would let a stranger make labels at will.
    counts.refused.inc({ event_type: handlers.has(envelope.type) ? envelope.type : 'unknown' })
    return { verdict: 'dead', error: new Error(accepted.refusal) }
  }
  for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)) {
    try {
      await options.crash.reach('consumer.before_tx')
      const startedAtMs = clock.monotonicMs()
      const applied = await apply(options, accepted)
      await options.crash.reach('consumer.after_commit')
      counts.duration.observe(labels, (clock.monotonicMs() - startedAtMs) / 1_000)
      if (applied) counts.consumed.inc(labels)
      else counts.duplicate.inc(labels)
      return { verdict: 'done' }
    } catch (error) {
      if (!isUnavailable(error))
        return failed(
          error,
          () => counts.failed.inc(labels),
          () => counts.refused.inc(labels),
        )
      // Not the event's fault: a database that is away for ten minutes must not fill the dead letters.
      if (closing.aborted) return { verdict: 'release' }
      log.warn({ event: 'consumer.database_away', queue, eventId: envelope.id, err: error })
      await clock.sleep(backoffMs, closing).catch(() => undefined)
    }
  }
}

interface Accepted<Schema> {
  readonly event: ReceivedEvent
  /** The instant inside the event's id. */
  readonly eventTime: Date
  readonly handler: EventHandler<Schema>
}

/** Finds the handler and parses the payload; a refusal is for good. */
function accept<Schema>(
  handlers: Route<Schema>,
  envelope: EventEnvelope,
): Accepted<Schema> | { refusal: string } {
  const found = handlers.get(envelope.type)
  if (found === undefined) return { refusal: `event ${envelope.type} is unknown to this queue` }
  const eventTime = timeOfId(envelope.id)
  if (eventTime === undefined) return { refusal: `event id ${envelope.id} is not a UUIDv7` }
  const data = payloadOf(found.definition, envelope)
  if ('refusal' in data) return data
  const event: ReceivedEvent = {
    id: envelope.id,
    type: envelope.type,
    subject: envelope.subject,
    time: new Date(envelope.time),
    aggregateType: envelope.aggregatetype,
    aggregateVersion: envelope.aggregateversion,
    traceparent: envelope.traceparent,
    data: data.payload,
  }
  return { event, eventTime, handler: found.handler }
}

function payloadOf(
  definition: EventDefinition,
  envelope: EventEnvelope,
): { payload: unknown } | { refusal: string } {
  const parsed = definition.payload.safeParse(envelope.data)
  if (parsed.success) return { payload: parsed.data }
  return {
    refusal: `payload of ${envelope.type} (${envelope.dataschema}) does not fit version ${definition.version}: ${parsed.error.message}`,
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
