/* Terminology:
 * - event: a fact in the past tense that a service published, such as `device.started`
 * - envelope: the CloudEvents 1.0 wrapper in which an event travels
 * - aggregate: the thing an event is about; its events are numbered 1, 2, 3 ... without a gap (`aggregateversion`)
 * - subscription: one queue of one service, bound to one or more event names
 */
import { z } from 'zod'

/** Declares an event: its name, the version of its payload's shape and what it is about. Never edited: a changed shape is a new version. */
export interface EventDefinition<Name extends string = string, Payload extends z.ZodType = z.ZodType> {
  readonly name: Name
  readonly version: number
  readonly aggregate: string
  readonly payload: Payload
  readonly description: string
}

export type PayloadOf<Definition extends EventDefinition> = z.output<Definition['payload']>

/** Names an event and its payload; see `EventDefinition`. */
export function defineEvent<const Name extends string, Payload extends z.ZodType>(
  definition: EventDefinition<Name, Payload>,
): EventDefinition<Name, Payload> {
  return definition
}

/**
 * The envelope of every event on the bus: CloudEvents 1.0 in its JSON form, with the extensions `traceparent` (W3C Trace
 * Context), `aggregatetype`, `aggregateversion` and `sagaid`.
 * @see https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
 */
export const EventEnvelope = z.object({
  specversion: z.literal('1.0'),
  id: z.guid(),
  source: z.string(),
  type: z.string(),
  subject: z.string(),
  time: z.string(),
  datacontenttype: z.literal('application/json'),
  dataschema: z.string(),
  aggregatetype: z.string(),
  aggregateversion: z.int().positive(),
  traceparent: z.string().optional(),
  data: z.unknown(),
})
export type EventEnvelope = z.infer<typeof EventEnvelope>

/** An event as a consumer's handler gets it: the envelope with its payload parsed by the definition. */
export interface ReceivedEvent<Payload = unknown> {
  readonly id: string
  readonly type: string
  readonly subject: string
  readonly time: Date
  readonly aggregateType: string
  readonly aggregateVersion: number
  readonly traceparent: string | undefined
  readonly data: Payload
}

/** The `dataschema` of an event: names its shape and version. */
export function schemaName(definition: EventDefinition): string {
  return `urn:cloudphone:${definition.name}:v${definition.version}`
}
