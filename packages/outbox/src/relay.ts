import type { Bus, PublishOutcome } from '@cloudphone/bus/bus'
import { openWake } from '@cloudphone/bus/wake'
import type { Executor } from '@cloudphone/db/executor'
import { listener, type Notifier } from '@cloudphone/db/listen'
import type { DatabaseTarget } from '@cloudphone/db/target'
import { type Clock, systemClock } from '@cloudphone/observe/clock'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { QueryExecutorProvider } from 'kysely'
import { openLaneKeeper, type TrustedLanes } from './lane-keeper.ts'
import { LANES } from './lanes.ts'
import type { OutboxRelay } from './outbox.ts'
import {
  cleanUpOutbox,
  envelopeOf,
  hasPendingUpTo,
  lastPending,
  markFailed,
  markPublished,
  nextRetryInMs,
  type OutboxRow,
  outboxStatistics,
  unpublishedRows,
} from './outbox-rows.ts'
import { relayMetrics } from './relay-metrics.ts'

export interface RelayOptions {
  /** The service's own database, whose schema holds the outbox. */
  readonly database: {
    readonly kysely: QueryExecutorProvider
    readonly schema: string
    readonly directUrl: DatabaseTarget
  }
  readonly bus: Pick<Bus, 'publish' | 'declare'>
  /** Of the same database. */
  readonly executor: Executor
  /** Of the same database: wakes the relays of other processes. */
  readonly notifier: Notifier
  readonly log: Logger
  readonly metrics: Metrics
  readonly crash: CrashPoints
  readonly clock?: Clock
  /** Rows per batch, and so events in flight to the bus. Default 1,000. */
  readonly batchSize?: number
  /** How long a frozen relay keeps its lanes. Default 1,500 ms. */
  readonly ttlMs?: number
  /** How often to look without having been woken. Default 5,000 ms. */
  readonly sweepMs?: number
}

const CLEAN_UP_EVERY_MS = 600_000
const FIRST_BACKOFF_MS = 100
const MAX_BACKOFF_MS = 5_000
const DRAIN_LOOK_MS = 5

/** After so many the lanes above the fair share are given back, if there are any, and other relays get them. */
const MOST_BATCHES_A_TURN = 16

/** Rows that the bus has, on their way to being marked. */
interface Marking {
  readonly rows: readonly OutboxRow[]
  readonly done: Promise<void>
}

const none: Promise<readonly OutboxRow[]> = Promise.resolve([])

/** Both results, or the first error when both have ended: nothing goes on behind the back of whoever waits. */
async function both<One, Other>(one: Promise<One>, other: Promise<Other>): Promise<[One, Other]> {
  await Promise.allSettled([one, other])
  return await Promise.all([one, other])
}

/** The channel on which relays of one schema are woken. */
export function outboxChannel(schema: string): string {
  return `outbox.${schema}`
}

/** Opens the relay of one service instance; it works from `start` to `stop`. */
export function openRelay(options: RelayOptions): OutboxRelay {
  const { database, bus, executor, notifier, log, crash, clock = systemClock } = options
  const { batchSize = 1_000, ttlMs = 1_500, sweepMs = 5_000 } = options
  const db = database.kysely
  const channel = outboxChannel(database.schema)
  const counts = relayMetrics(options.metrics, () => outboxStatistics(db))
  const wake = openWake(clock)
  const stopped = new AbortController()
  const keeper = openLaneKeeper({ db, executor, log, ttlMs, onTaken: wake.raise })
  let lanesHeld = 0
  let ears: { close(): Promise<void> } | undefined
  let pumping: Promise<void> | undefined
  let stopping: Promise<void> | undefined

  /**
   * Under one hold of the lanes: select, publish, mark. While a full batch is on its way to the bus the next one is
   * selected and the one before is marked, but never are two on their way: the second may hold what follows an event that
   * the bus refuses in the first. Answers whether there may be more at once.
   */
  const turn = async (): Promise<boolean> => {
    const held = await keeper.current()
    lanesHeld = held.lanes.length
    if (held.lanes.length === 0) return false
    let marking: Marking = { rows: [], done: Promise.resolve() }
    let rows = await unpublishedRows(db, { lanes: held.lanes, limit: batchSize })
    let more = rows.length > 0
    try {
      for (let batches = 0; rows.length > 0; batches += 1) {
        await crash.reach('outbox.after_claim')
        if (!held.trusted()) return true
        const goesOn = rows.length === batchSize && batches < MOST_BATCHES_A_TURN
        const [outcomes, next] = await both(
          publish(rows),
          goesOn
            ? unpublishedRows(db, { ...held, limit: batchSize, besides: [...marking.rows, ...rows] })
            : none,
        )
        await crash.reach('outbox.after_publish')
        await marking.done
        marking = startMarking(rows, outcomes, held)
        // What waited behind a row that had failed may go now.
        more = rows.length === batchSize || rows.some(({ retryCount }) => retryCount > 0)
        rows = outcomes.every(({ outcome }) => outcome === 'accepted') ? next : []
      }
      return more
    } finally {
      await marking.done
    }
  }

  const startMarking = (
    rows: readonly OutboxRow[],
    outcomes: readonly PublishOutcome[],
    held: TrustedLanes,
  ): Marking => {
    const done = mark(rows, outcomes, held).then(() => crash.reach('outbox.after_mark'))
    // Its failure is the turn's to hear, which may be waiting for the bus just now.
    done.catch(() => undefined)
    return { rows, done }
  }

  const publish = async (rows: readonly OutboxRow[]): Promise<readonly PublishOutcome[]> => {
    try {
      return await bus.publish(rows.map(envelopeOf))
    } catch (error) {
      counts.busErrors.inc()
      throw error
    }
  }

  const mark = async (
    rows: readonly OutboxRow[],
    outcomes: readonly PublishOutcome[],
    held: TrustedLanes,
  ): Promise<void> => {
    const accepted: OutboxRow[] = []
    const failed: { id: string; error: string }[] = []
    let unroutable = false
    for (const [at, row] of rows.entries()) {
      const outcome = outcomes[at] ?? { outcome: 'failed', error: 'the bus gave no answer' }
      if (outcome.outcome === 'accepted') {
        accepted.push(row)
        continue
      }
      const error =
        outcome.outcome === 'failed' ? outcome.error : 'no queue took it: the topology is incomplete'
      failed.push({ id: row.id, error })
      if (outcome.outcome === 'unroutable') {
        unroutable = true
        counts.unroutable.inc({ event_type: row.eventType })
      } else counts.failed.inc({ event_type: row.eventType })
      log.error({ event: 'outbox.publish_failed', eventId: row.id, eventType: row.eventType, reason: error })
    }
    if (accepted.length > 0) {
      const marked = await markPublished(
        db,
        accepted.map(({ id }) => id),
        held,
      )
      if (marked < accepted.length) counts.refused.inc(accepted.length - marked)
      for (const { eventType } of accepted) counts.published.inc({ event_type: eventType })
    }
    if (failed.length > 0) await markFailed(db, failed, held)
    if (unroutable) await bus.declare()
  }

  const pump = async (): Promise<void> => {
    let backoffMs = FIRST_BACKOFF_MS
    let cleanUpAtMs = clock.monotonicMs()
    while (!stopped.signal.aborted) {
      try {
        if (await turn()) continue
        backoffMs = FIRST_BACKOFF_MS
        if (clock.monotonicMs() >= cleanUpAtMs) {
          cleanUpAtMs = clock.monotonicMs() + CLEAN_UP_EVERY_MS
          await cleanUpOutbox(db)
        }
        const retryInMs = await nextRetryInMs(db)
        await wake.wait(Math.min(sweepMs, Math.max(1, retryInMs ?? sweepMs)))
      } catch (error) {
        log.warn({ event: 'outbox.turn_failed', schema: database.schema, err: error })
        // Not woken by new rows: what failed is the way, not a row.
        await clock.sleep(backoffMs, stopped.signal).catch(() => undefined)
        backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)
      }
    }
  }

  const stop = async (): Promise<void> => {
    stopped.abort(new Error('the relay stops'))
    wake.raise()
    await pumping
    await ears?.close()
    await keeper.stop()
  }

  return {
    async start() {
      ears = listener({
        url: database.directUrl,
        channels: [channel],
        onNotify: wake.raise,
        applicationName: `${channel} listener`,
        log,
      })
      await keeper.start()
      pumping = pump()
    },
    wake() {
      wake.raise()
      // With all lanes here nobody else has anything to do. Wrong for a moment at a hand-over: the sweep finds it.
      if (lanesHeld < LANES) notifier.notify(channel)
    },
    async drain() {
      const last = await lastPending(db)
      while (last !== undefined && !stopped.signal.aborted && (await hasPendingUpTo(db, last))) {
        wake.raise()
        await systemClock.sleep(DRAIN_LOOK_MS)
      }
    },
    statistics: () => outboxStatistics(db),
    stop() {
      stopping ??= stop()
      return stopping
    },
  }
}
