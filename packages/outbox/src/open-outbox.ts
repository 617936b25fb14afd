import { type EventDefinition, schemaName } from '@cloudphone/contracts/event'
import type { Ids } from '@cloudphone/contracts/id'
import { type AnyTx, afterCommit } from '@cloudphone/db/database'
import { currentTraceparent } from '@cloudphone/observe/trace'
import { sql } from 'kysely'
import type { EventFacts, Fact, Outbox } from './outbox.ts'

/** The folder with the outbox's tables, for `migrate`. Needs `app_now()`. */
export const OUTBOX_MIGRATIONS = new URL('../migrations/', import.meta.url)

/** An event whose payload or aggregate does not fit its definition. Nothing was written. */
export class InvalidEvent extends Error {
  override readonly name = 'InvalidEvent'
  readonly code = 'invalid_event'
  readonly retryable = false
}

export interface OutboxOptions {
  /** The service's name: the `source` of its events. */
  readonly source: string
  readonly ids: Ids
  /** Called after each commit that wrote events: the relay's `wake`. */
  readonly wake: () => void
}

/** An event with its facts, typed by the definition, for `Outbox.addMany`. */
export function fact<Definition extends EventDefinition>(
  definition: Definition,
  facts: EventFacts<Definition>,
): Fact<Definition> {
  return { definition, ...facts }
}

/** Opens the outbox of one service. Keeps no state: the rows are all there is. */
export function openOutbox({ source, ids, wake }: OutboxOptions): Outbox {
  const addMany = async (tx: AnyTx, facts: readonly Fact[]): Promise<void> => {
    if (facts.length === 0) return
    const traceparent = currentTraceparent()
    const rows = facts.map((one) => ({
      id: ids.next<'event'>(),
      payload: JSON.stringify(checkedPayload(one)),
      headers: JSON.stringify({
        source,
        dataschema: schemaName(one.definition),
        ...(traceparent === undefined ? {} : { traceparent }),
      }),
    }))
    await sql`
      insert into event_outbox
        (id, aggregate_type, aggregate_id, aggregate_version, event_type, payload, headers)
      select id, aggregate_type, aggregate_id, aggregate_version, event_type, payload::json, headers::json
      from unnest(
        ${rows.map(({ id }) => id)}::uuid[],
        ${facts.map(({ definition }) => definition.aggregate)}::text[],
        ${facts.map(({ aggregateId }) => aggregateId)}::text[],
        ${facts.map(({ aggregateVersion }) => aggregateVersion)}::integer[],
        ${facts.map(({ definition }) => definition.name)}::text[],
        ${rows.map(({ payload }) => payload)}::text[],
        ${rows.map(({ headers }) => headers)}::text[]
      ) with ordinality
        as fact (id, aggregate_type, aggregate_id, aggregate_version, event_type, payload, headers, ordinal)
      order by ordinal`.execute(tx)
    afterCommit(tx, wake)
  }
  return {
    addMany,
    add: (tx, definition, facts) => addMany(tx, [fact(definition, facts)]),
  }
}

/** The payload as the wire carries it. Checked on this side, so that a wrong one fails its writer and not its readers. */
function checkedPayload({ definition, aggregateId, aggregateVersion, payload }: Fact): unknown {
  const where = `Event ${definition.name} of ${definition.aggregate} ${aggregateId || '(no id)'}`
  if (aggregateId === '') throw new InvalidEvent(`${where}: the aggregate's id is empty`)
  if (!Number.isSafeInteger(aggregateVersion) || aggregateVersion < 1) {
    throw new InvalidEvent(`${where}: version ${aggregateVersion} is not a positive integer`)
  }
  const parsed = definition.payload.safeParse(payload)
  if (!parsed.success) throw new InvalidEvent(`${where}: ${parsed.error.message}`, { cause: parsed.error })
  return parsed.data
}
