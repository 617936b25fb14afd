import type { Tx } from '@cloudphone/db/database'
import { isUnavailable } from '@cloudphone/db/errors'
import { inTrace } from '@cloudphone/observe/trace'
import { type Accepted, accept } from './accept.ts'
import type { Delivery, Fate, HandleBatch } from './bus.ts'
import { enterInboxes, leaveInbox } from './inbox.ts'
import { type ReceiveOptions, whenReachable } from './receive.ts'

/**
 * After that long a batch starts no further handler and commits what it has: rows stay locked, and what is done stays
 * uncommitted, for no longer than this and one more handler. A handler that alone takes longer asks for a transaction of
 * its own (see `on`). Measuring them and choosing for them was rejected: a busy machine makes every handler look slow,
 * and batches would be given up just when they are needed. So is a short limit: 200 plain handlers take 20 ms, but at
 * 50 ms a machine with ten processes for each core cut its batches to 16 and needed twice the CPU for each event
 * (measured).
 */
const LONGEST_BATCH_MS = 100
/**
 * A batch holds the rows of many events, so two of them may wait for each other, or one for somebody's long transaction.
 * PostgreSQL finds the first out after a second; a batch gives up before, and the event in question goes alone, which
 * locks no more than its handler says.
 */
const LOCK_TIMEOUT_MS = 100
/** Each costs the others a rollback. After so many the rest goes one by one. */
const MOST_CULPRITS = 3

/** Which event made a batch fail. It carries no `cause`, or a conflict in it would make the transaction run again whole. */
class Culprit extends Error {
  override readonly name = 'Culprit'
  readonly eventId: string
  readonly reason: unknown

  constructor(eventId: string, reason: unknown) {
    super(`Event ${eventId}: ${reason instanceof Error ? reason.message : String(reason)}`)
    this.eventId = eventId
    this.reason = reason
  }
}

interface Member<Schema> extends Accepted<Schema> {
  readonly delivery: Delivery
  readonly aggregate: string
}

/**
 * The consumer's side of a queue for what comes in batches: their inbox rows in one statement, the handlers one after the
 * other, one commit. If one fails, the others do without it; what is malformed, fails or wants to be alone goes alone,
 * with everything of its aggregate behind it.
 */
export function receiveBatch<Schema>(options: ReceiveOptions<Schema>): HandleBatch {
  return async (deliveries) => {
    const fates = new Map<Delivery, Fate>()
    let members = together(options, deliveries)
    // One by itself needs no batch.
    for (let culprits = 0; members.length > 1 && culprits < MOST_CULPRITS; culprits += 1) {
      try {
        const applied = await whenReachable(options, () => applyAll(options, members))
        for (const [at, { delivery }] of members.entries())
          fates.set(delivery, at < applied ? 'done' : 'later')
        break
      } catch (error) {
        if (!(error instanceof Culprit)) throw error
        options.log.debug({ event: 'consumer.batch_split', queue: options.queue, err: error.reason })
        members = without(members, error.eventId)
      }
    }
    return deliveries.map((delivery) => fates.get(delivery) ?? 'alone')
  }
}

/** Those that may share a transaction, aggregate by aggregate: all batches lock rows in that order. */
function together<Schema>(
  { handlers }: ReceiveOptions<Schema>,
  deliveries: readonly Delivery[],
): readonly Member<Schema>[] {
  const stopped = new Set<string>()
  const members: Member<Schema>[] = []
  for (const delivery of deliveries) {
    const { aggregatetype, subject } = delivery.envelope
    const aggregate = `${aggregatetype}:${subject}`
    if (stopped.has(aggregate)) continue
    const accepted = accept(handlers, delivery.envelope)
    if ('refusal' in accepted || accepted.handler.transaction === 'own') stopped.add(aggregate)
    else members.push({ ...accepted, delivery, aggregate })
  }
  return members.toSorted(({ aggregate: one }, { aggregate: other }) =>
    one === other ? 0 : one < other ? -1 : 1,
  )
}

/** Without that event and what is behind it in its aggregate. */
function without<Schema>(members: readonly Member<Schema>[], eventId: string): readonly Member<Schema>[] {
  const at = members.findIndex(({ event }) => event.id === eventId)
  const culprit = members[at]
  return members.filter((one, index) => index < at || one.aggregate !== culprit?.aggregate)
}

/** Returns how many of them are applied now, counted from the first. */
async function applyAll<Schema>(
  options: ReceiveOptions<Schema>,
  members: readonly Member<Schema>[],
): Promise<number> {
  const { database, crash, clock, counts } = options
  await crash.reach('consumer.before_tx')
  const startedAtMs = clock.monotonicMs()
  // The statements of one handler come two hundred times in a row.
  const fresh = await database.transaction((tx) => applyIn(tx, options, members), { statements: 'prepared' })
  await crash.reach('consumer.after_commit')
  const seconds = (clock.monotonicMs() - startedAtMs) / 1_000
  for (const [at, isFresh] of fresh.entries()) {
    const labels = { event_type: members[at]?.event.type ?? '' }
    counts.duration.observe(labels, seconds)
    if (isFresh) counts.consumed.inc(labels)
    else counts.duplicate.inc(labels)
  }
  return fresh.length
}

/** Of each that it got to, whether it had not been applied before. */
async function applyIn<Schema>(
  tx: Tx<Schema>,
  { queue, crash, clock }: ReceiveOptions<Schema>,
  members: readonly Member<Schema>[],
): Promise<readonly boolean[]> {
  const entries = members.map(({ event, eventTime }) => ({ eventId: event.id, eventTime }))
  const inbox = { consumer: queue, lockTimeoutMs: LOCK_TIMEOUT_MS }
  const unseen = await enterInboxes(tx, { ...inbox, events: entries })
  const untilMs = clock.monotonicMs() + LONGEST_BATCH_MS
  const fresh: boolean[] = []
  for (const { event, handler } of members) {
    if (fresh.length > 0 && clock.monotonicMs() >= untilMs) break
    // The same event may be here twice.
    const isFresh = unseen.delete(event.id.toLowerCase())
    fresh.push(isFresh)
    if (!isFresh) continue
    try {
      await inTrace(event.traceparent, () => handler.handle(tx, event))
      await crash.reach('consumer.in_tx')
    } catch (error) {
      throw isUnavailable(error) ? error : new Culprit(event.id, error)
    }
  }
  const rest = entries.slice(fresh.length).filter(({ eventId }) => unseen.has(eventId.toLowerCase()))
  if (rest.length > 0) await leaveInbox(tx, { ...inbox, events: rest })
  return fresh
}
