import type { EventDefinition, EventEnvelope, ReceivedEvent } from '@cloudphone/contracts/event'
import { timeOfId } from '@cloudphone/contracts/id'
import type { EventHandler, Route } from './handler.ts'

/** An event with the handler that is to apply it. */
export interface Accepted<Schema> {
  readonly event: ReceivedEvent
  /** The instant inside the event's id. */
  readonly eventTime: Date
  readonly handler: EventHandler<Schema>
}

/** Finds the handler and parses the payload; a refusal is for good. */
export function accept<Schema>(
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
