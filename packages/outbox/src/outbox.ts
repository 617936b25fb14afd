/* Terminology:
 * - outbox: the table in which a service writes its events inside the business transaction
 * - relay: the loop that hands outbox rows to the bus and marks them published after the bus has them
 * - lane: one of 16 lines by hash of the aggregate, each leased to one relay, so that order per aggregate holds
 */
import type { EventDefinition, PayloadOf } from '@cloudphone/contracts/event'
import type { AnyTx } from '@cloudphone/db/database'

/** What identifies the fact besides its payload. */
export interface EventFacts<Definition extends EventDefinition> {
  readonly aggregateId: string
  /** The aggregate's version after this fact, taken under the row's lock; +1 per event (decision 26). */
  readonly aggregateVersion: number
  readonly payload: PayloadOf<Definition>
}

/** An event with its facts, checked and ready to be written. Made by `fact`. */
export interface Fact<Definition extends EventDefinition = EventDefinition> extends EventFacts<Definition> {
  readonly definition: Definition
}

export interface OutboxStatistics {
  /** Rows that wait for their first publication. */
  readonly pending: number
  /** Rows whose last publication failed; they are tried again. */
  readonly failed: number
  readonly published: number
  /** Age of the oldest unpublished row in seconds; 0 when there is none. */
  readonly lagSeconds: number
}

/** The only way by which facts leave a service. */
export interface Outbox {
  /**
   * Writes an event in the caller's transaction; it leaves only when that commits. The payload is checked against the
   * definition first: a wrong one throws `InvalidEvent` before anything is written. A version that the aggregate already
   * has raises the unique violation of `idx_outbox_aggregate`: its writer did not hold the aggregate's row lock.
   */
  add<Definition extends EventDefinition>(
    tx: AnyTx,
    definition: Definition,
    facts: EventFacts<Definition>,
  ): Promise<void>
  /** As `add`, for several events in one statement, in this order. */
  addMany(tx: AnyTx, facts: readonly Fact[]): Promise<void>
}

/** Publishes what the outbox holds. Started by the runtime after the topology is declared. */
export interface OutboxRelay {
  start(): Promise<void>
  /** Looks at the outbox now, here and in the other relays of the schema: what `openOutbox` calls after each commit. */
  wake(): void
  /**
   * Resolves when every row that was pending at the call has been published or has failed at least once, or when the
   * relay stops: for tests and for the drain.
   */
  drain(): Promise<void>
  statistics(): Promise<OutboxStatistics>
  /** Ends the turn in hand and gives its lanes back, so that another instance takes them at once. Idempotent. */
  stop(): Promise<void>
}
