import type { EventDefinition, PayloadOf, ReceivedEvent } from '@cloudphone/contracts/event'
import type { Tx } from '@cloudphone/db/database'

/**
 * Applies one event in the consumer's transaction. May run more than once for an event, but commits once. Long work does
 * not belong here: write down that it is to be done (a saga, a row) and return. An error with `retryable: false` makes
 * the event a dead letter at once, any other is tried again.
 */
export type Handle<Schema, Payload> = (tx: Tx<Schema>, event: ReceivedEvent<Payload>) => Promise<void>

/** A handler and the events that it hears. Made by `on`. */
export interface EventHandler<Schema> {
  readonly definitions: readonly EventDefinition[]
  /** The queue it serves, when several queues of the service hear its events. */
  readonly queue: string | undefined
  handle(tx: Tx<Schema>, event: ReceivedEvent): Promise<void>
}

/** Says which event, or which of several, a handler hears. Name the queue if two queues of the service hear the event. */
export function on<Definition extends EventDefinition, Schema>(
  heard: Definition | readonly Definition[],
  handle: Handle<Schema, PayloadOf<Definition>>,
  { queue }: { queue?: string } = {},
): EventHandler<Schema> {
  const definitions: readonly EventDefinition[] = 'payload' in heard ? [heard] : heard
  return {
    definitions,
    queue,
    // The payload was parsed by the definition that bears the event's name, which is one of these.
    handle: (tx, event) => handle(tx, event as ReceivedEvent<PayloadOf<Definition>>),
  }
}

/** Per queue, the handler of each event by name. */
export type Route<Schema> = ReadonlyMap<
  string,
  { definition: EventDefinition; handler: EventHandler<Schema> }
>
