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

export interface OutboxStatistics {
  readonly pending: number
  readonly failed: number
  readonly published: number
  /** Age of the oldest unpublished row in seconds; 0 when there is none. */
  readonly lagSeconds: number
}

/** The only way by which facts leave a service. */
export interface Outbox {
  /**
   * Writes an event in the caller's transaction; it leaves only when that commits. The payload is checked against the
   * definition first: a wrong one throws before anything is written.
   */
  add<Definition extends EventDefinition>(
    tx: AnyTx,
    definition: Definition,
    facts: EventFacts<Definition>,
  ): Promise<void>
}

/** Publishes what the outbox holds. Started by the runtime after the topology is declared. */
export interface OutboxRelay {
  start(): Promise<void>
  /** Resolves when every row that was pending at the call is published or failed: for tests and for the drain. */
  drain(): Promise<void>
  statistics(): Promise<OutboxStatistics>
  /** Gives its lanes back, so that another instance takes them at once. */
  stop(): Promise<void>
}
