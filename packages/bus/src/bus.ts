/* Terminology:
 * - bus: carries events from the outbox of one service to the queues of others, at least once
 * - queue: a durable line of deliveries for one subscription; each delivery goes to one consumer
 * - delivery: one event in one queue; it is done when its consumer's transaction has committed
 * - dead letter: a delivery that failed for good; kept with its reason until somebody replays or discards it
 * - batch: deliveries that are free to go, handled in one transaction of their consumer
 */
import type { EventEnvelope } from '@cloudphone/contracts/event'

/** What became of one published event. Only `accepted` lets the outbox mark its row. */
export type PublishOutcome =
  | { readonly outcome: 'accepted' }
  /** No queue took an event that has subscribers: a topology fault. The row stays and is tried again. */
  | { readonly outcome: 'unroutable' }
  | { readonly outcome: 'failed'; readonly error: string }

/** A delivery as the adapter hands it to a consumer. */
export interface Delivery {
  readonly queue: string
  readonly envelope: EventEnvelope
  /** 1 for the first try. */
  readonly attempt: number
}

/** What the consumer decided, after its transaction: the adapter carries it out. */
export type Verdict =
  | { readonly verdict: 'done' }
  /** Tried again after 1 s, 5 s and 60 s, then a dead letter (or dropped, for an informational queue). */
  | { readonly verdict: 'retry'; readonly error: Error }
  /** Never tried again: malformed, or refused for good. A dead letter, unless the queue is informational. */
  | { readonly verdict: 'dead'; readonly error: Error }
  /** Not tried: the consumer is closing or cannot reach its database. Delivered again, to whoever is ready; no try is used up. */
  | { readonly verdict: 'release' }

export interface DeadLetter {
  readonly id: string
  readonly queue: string
  readonly eventId: string
  readonly eventType: string
  readonly envelope: unknown
  readonly error: string
  readonly attempts: number
  readonly firstFailedAt: Date
  readonly diedAt: Date
}

export interface QueueStatistics {
  readonly queue: string
  readonly ready: number
  readonly delayed: number
  readonly inFlight: number
  readonly dead: number
}

/** What became of a delivery in a batch. */
export type Fate =
  /** Its effect is committed. */
  | 'done'
  /** Nothing of it is. It is to be handled by itself. */
  | 'alone'
  /** Nothing of it is, for want of time. It comes with the next batch. */
  | 'later'

/**
 * Handles deliveries in one go and answers one fate for each. They come in the order of publication, several of one
 * aggregate one behind the other; of an aggregate nothing may be done behind what is not. When it throws, each of them
 * is handled alone.
 */
export type HandleBatch = (deliveries: readonly Delivery[]) => Promise<readonly Fate[]>

export interface ConsumeOptions {
  /** At most so many deliveries are unfinished at a time. Default 32. */
  readonly prefetch?: number
  /**
   * For what is free to go when there is more than one: two batches run at a time, and what comes meanwhile makes the
   * next one, so batches grow under load and nothing waits for company. What failed before goes alone, always.
   */
  readonly together?: HandleBatch
}

/** A running consumer. `close` takes no more deliveries and resolves when those in hand are finished. */
export interface Consumer {
  close(): Promise<void>
}

/** The port behind which RabbitMQ or the embedded bus stands. Both pass `bus.contract.ts`. */
export interface Bus {
  /** Declares every queue of the topology. Idempotent; called before the first publish, and again on `unroutable`. */
  declare(): Promise<void>
  /**
   * Publishes events in order and resolves when each is durable in every queue that subscribes to it. Throws when the
   * bus cannot be reached: then nothing is known of any of them, and all are to be published again.
   * Publishing an event again (same id) is harmless: it may be delivered once more, to be refused by the consumer's inbox.
   * The inbox is the guarantee.
   */
  publish(envelopes: readonly EventEnvelope[]): Promise<readonly PublishOutcome[]>
  /**
   * Runs `handle` for each delivery; a thrown error counts as `retry`. Deliveries of one aggregate in one queue run one
   * after the other, in the order of publication; others run side by side. Whether the next one of an aggregate waits
   * for the retry of the one before is the adapter's to say, so handlers must bear an overtaken event (decision 24).
   */
  consume(
    queue: string,
    handle: (delivery: Delivery) => Promise<Verdict>,
    options?: ConsumeOptions,
  ): Promise<Consumer>
  deadLetters: {
    list(filter?: { queue?: string; limit?: number; after?: string }): Promise<readonly DeadLetter[]>
    get(id: string): Promise<DeadLetter | undefined>
    /** Puts it back into its queue under its original event id. False when there is no such dead letter. */
    replay(id: string): Promise<boolean>
    /** How many were put back. */
    replayAll(filter?: { queue?: string }): Promise<number>
  }
  statistics(): Promise<readonly QueueStatistics[]>
  /** Resolves when nothing is ready, in flight or delayed until before now: for tests. */
  idle(): Promise<void>
  /** Closes consumers, then connections. Idempotent. */
  close(): Promise<void>
}
