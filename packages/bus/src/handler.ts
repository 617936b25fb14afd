import type { EventDefinition, PayloadOf, ReceivedEvent } from '@cloudphone/contracts/event'
import type { Tx } from '@cloudphone/db/database'

/**
 * Applies one event in the consumer's transaction, which may be that of other events too: if one of them fails, all are
 * rolled back and applied again. So it may run more than once for an event, but commits once. Long work does not belong
 * here: write down that it is to be done (a saga, a row) and return. An error with `retryable: false` makes
 * the event a dead letter at once, any other is tried again.
 */
export type Handle<Schema, Payload> = (tx: Tx<Schema>, event: ReceivedEvent<Payload>) => Promise<void>

/** A handler and the events that it hears. Made by `on`. */
export interface EventHandler<Schema> {
  readonly definitions: readonly EventDefinition[]
  /** The queue it serves, when several queues of the service hear its events. */
  readonly queue: string | undefined
  /**
   * `shared`: under load its events commit in one transaction with others of the queue, up to 200. `own`: each by itself,
   * for a handler that takes its time, since everything in a batch waits for the slowest.
   */
  readonly transaction: 'shared' | 'own'
  handle(tx: Tx<Schema>, event: ReceivedEvent): Promise<void>
}

/**
 * Says which event, or which of several, a handler hears. Name the queue if two queues of the service hear the event, and
 * ask for a transaction of its `own` if it takes more than some milliseconds.
 */
export function on<Definition extends EventDefinition, Schema>(
  heard: Definition | readonly Definition[],
  handle: Handle<Schema, PayloadOf<Definition>>,
  { queue, transaction = 'shared' }: { queue?: string; transaction?: 'shared' | 'own' } = {},
): EventHandler<Schema> {
  const definitions: readonly EventDefinition[] = 'payload' in heard ? [heard] : heard
  return {
    definitions,
    queue,
    transaction,
    // The payload was parsed by the definition that bears the event's name, which is one of these.
    handle: (tx, event) => handle(tx, event as ReceivedEvent<PayloadOf<Definition>>),
  }
}

/** Per queue, the handler of each event by name. */
export type Route<Schema> = ReadonlyMap<
  string,
  { definition: EventDefinition; handler: EventHandler<Schema> }
>
