import type { Logger } from '@cloudphone/observe/log'
import type { QueryExecutorProvider } from 'kysely'
import type { Verdict } from '../bus.ts'
import type { BusCounts } from '../bus-metrics.ts'
import { buryDelivery, type Claimed, delayDelivery, releaseDeliveries, settleAndClaim } from './deliveries.ts'

export interface SettlementOptions {
  readonly db: QueryExecutorProvider
  readonly queue: string
  /** What fails for good becomes a dead letter; else it is logged, counted and gone. */
  readonly critical: boolean
  /** Waits before the 2nd, 3rd ... try. After the last one a failure is for good. */
  readonly retryDelaysMs: readonly number[]
  readonly log: Logger
  readonly counts: BusCounts
}

/** A delivery and what became of it, to be written to the database. */
export interface Finished {
  readonly claimed: Claimed
  readonly verdict: Verdict
  /** It was tried and comes again, so its aggregate stands still until that is written. */
  readonly breaks: boolean
}

// Whoever released it was not ready: to claim it at once again would only burn time.
const RELEASE_DELAY_MS = 50

/**
 * Writes what became of deliveries that are not done. Every write stands for itself: after a failure all of them may be
 * repeated. Returns after which delays there is something to claim again.
 */
export async function settleOthers(
  options: SettlementOptions,
  finished: readonly Finished[],
): Promise<readonly number[]> {
  const { db, queue } = options
  const delays: number[] = []
  for (const { claimed, verdict } of finished) {
    if (verdict.verdict !== 'retry' && verdict.verdict !== 'dead') continue
    const delayMs = await settleFailure(options, claimed, verdict)
    if (delayMs !== undefined) delays.push(delayMs)
  }
  // Last: what waited behind a retry must find it delayed.
  const released = finished.filter(({ verdict }) => verdict.verdict === 'release')
  for (const [executor, own] of Map.groupBy(released, ({ claimed }) => claimed.executor)) {
    await releaseDeliveries(db, { queue, executor, positions: own.map(({ claimed }) => claimed.position) })
    delays.push(RELEASE_DELAY_MS)
  }
  return delays
}

/** Returns after how long it is tried again; undefined when never. */
async function settleFailure(
  { db, queue, critical, retryDelaysMs, log, counts }: SettlementOptions,
  { position, eventId, executor, failures }: Claimed,
  { verdict, error }: Extract<Verdict, { error: Error }>,
): Promise<number | undefined> {
  const delayMs = verdict === 'retry' ? retryDelaysMs[failures] : undefined
  const line = { queue, eventId, attempt: failures + 1, err: error }
  const failure = { queue, executor, position, error: error.stack ?? error.message }
  if (delayMs !== undefined) {
    log.warn({ event: 'bus.delivery_failed', ...line, retryInMs: delayMs })
    counts.retried.inc({ queue })
    await delayDelivery(db, { ...failure, delayMs })
  } else if (critical) {
    log.error({ event: 'bus.delivery_dead', ...line })
    counts.dead.inc({ queue })
    await buryDelivery(db, failure)
  } else {
    log.error({ event: 'bus.delivery_dropped', ...line })
    counts.dropped.inc({ queue })
    await settleAndClaim(db, { queue, executor, done: [position], most: 0 })
  }
  return delayMs
}
