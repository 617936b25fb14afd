import { EventEnvelope } from '@cloudphone/contracts/event'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { QueryExecutorProvider } from 'kysely'
import type { Consumer, Delivery, Verdict } from '../bus.ts'
import type { BusCounts } from '../bus-metrics.ts'
import { openWake } from '../wake.ts'
import { type Finished, openAggregateLines } from './aggregate-lines.ts'
import {
  buryDelivery,
  type Claimed,
  claimDeliveries,
  delayDelivery,
  releaseDeliveries,
  removeDeliveries,
} from './deliveries.ts'

export interface QueueConsumerOptions {
  readonly db: QueryExecutorProvider
  readonly queue: string
  /** What fails for good becomes a dead letter; else it is logged, counted and gone. */
  readonly critical: boolean
  readonly handle: (delivery: Delivery) => Promise<Verdict>
  readonly prefetch: number
  /** Waits before the 2nd, 3rd ... try. After the last one a failure is for good. */
  readonly retryDelaysMs: readonly number[]
  /** The executor to claim under; null while there is none, or its heartbeat is not known to be young. */
  readonly executor: () => string | null
  readonly clock: Clock
  readonly log: Logger
  readonly counts: BusCounts
}

export interface QueueConsumer extends Consumer {
  /** There may be something to claim. */
  wake(): void
}

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 2_000
const RELEASE_DELAY_MS = 50
const MAX_REST_MS = 60_000

/**
 * Consumes one queue until closed. A single loop settles what has finished and claims what is free, in turns: batches
 * grow by themselves under load, and a claim never races with the settling of what it must wait for.
 */
export function consumeQueue(options: QueueConsumerOptions): QueueConsumer {
  const { db, queue, handle, prefetch, clock, log } = options
  const wake = openWake(clock)
  let mayClaim = true
  let closing = false
  // When the retries that were put off here are due, on our own clock; those of other processes are found by the poll.
  let retriesDueAtMs: number[] = []

  const run = async (delivery: Claimed): Promise<Verdict> => {
    try {
      const envelope = EventEnvelope.safeParse(delivery.envelope)
      if (!envelope.success) {
        return { verdict: 'dead', error: new Error(`not a CloudEvents envelope: ${envelope.error.message}`) }
      }
      return await handle({ queue, envelope: envelope.data, attempt: delivery.failures + 1 })
    } catch (error) {
      return { verdict: 'retry', error: error instanceof Error ? error : new Error(String(error)) }
    }
  }
  const lines = openAggregateLines({ run, onFinished: wake.raise })

  const claim = async (): Promise<void> => {
    const free = prefetch - lines.inHand
    const executor = options.executor()
    if (closing || !mayClaim || free <= 0 || executor === null) return
    // Lowered before the statement is sent: a wake-up that comes while it runs must not be lost.
    mayClaim = false
    try {
      const claimed = await claimDeliveries(db, { queue, executor, most: free })
      if (claimed.length === free) mayClaim = true
      for (const delivery of claimed) lines.add(delivery)
    } catch (error) {
      mayClaim = true
      throw error
    }
  }

  const settle = async (): Promise<void> => {
    const finished = lines.takeFinished()
    if (finished.length === 0) return
    try {
      for (const delayMs of await settleAll(options, finished)) {
        retriesDueAtMs.push(clock.monotonicMs() + delayMs)
      }
    } catch (error) {
      lines.notSettled(finished)
      throw error
    }
    lines.settled(finished)
  }

  /** Until something has finished, a wake-up (the poll is one), or the next retry. */
  const rest = async (): Promise<void> => {
    const startedAtMs = clock.monotonicMs()
    await wake.wait(
      Math.min(MAX_REST_MS, ...retriesDueAtMs.map((dueAtMs) => Math.max(1, dueAtMs - startedAtMs))),
    )
    const nowMs = clock.monotonicMs()
    const stillWaiting = retriesDueAtMs.filter((dueAtMs) => dueAtMs > nowMs)
    if (stillWaiting.length < retriesDueAtMs.length) mayClaim = true
    retriesDueAtMs = stillWaiting
  }

  const turns = async (): Promise<void> => {
    let backoffMs = FIRST_BACKOFF_MS
    while (!closing || lines.inHand > 0) {
      try {
        await settle()
        await claim()
        if (closing && lines.inHand === 0) return
        await rest()
        backoffMs = FIRST_BACKOFF_MS
      } catch (error) {
        log.warn({ event: 'bus.turn_failed', queue, err: error })
        await clock.sleep(backoffMs)
        backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)
      }
    }
  }
  const running = turns()

  return {
    wake() {
      mayClaim = true
      wake.raise()
    },
    async close() {
      closing = true
      lines.close()
      wake.raise()
      await running
    },
  }
}

/**
 * Writes what became of deliveries. Every write stands for itself: after a failure all of them may be repeated. Returns
 * after which delays there is something to claim again.
 */
async function settleAll(
  options: QueueConsumerOptions,
  finished: readonly Finished[],
): Promise<readonly number[]> {
  const { db, queue } = options
  const delays: number[] = []
  for (const [executor, own] of Map.groupBy(finished, ({ delivery }) => delivery.executor)) {
    const idsOf = (wanted: Verdict['verdict']): string[] =>
      own.filter(({ verdict }) => verdict.verdict === wanted).map(({ delivery }) => delivery.eventId)
    const done = idsOf('done')
    if (done.length > 0) await removeDeliveries(db, { queue, executor, eventIds: done })
    for (const { delivery, verdict } of own) {
      if (verdict.verdict !== 'retry' && verdict.verdict !== 'dead') continue
      const delayMs = await settleFailure(options, delivery, verdict)
      if (delayMs !== undefined) delays.push(delayMs)
    }
    // Last: what waited behind a retry must find it delayed.
    const released = idsOf('release')
    if (released.length > 0) {
      await releaseDeliveries(db, { queue, executor, eventIds: released })
      // Whoever released it was not ready: to claim it at once again would only burn time.
      delays.push(RELEASE_DELAY_MS)
    }
  }
  return delays
}

/** Returns after how long it is tried again; undefined when never. */
async function settleFailure(
  { db, queue, critical, retryDelaysMs, log, counts }: QueueConsumerOptions,
  { eventId, executor, failures }: Claimed,
  { verdict, error }: Extract<Verdict, { error: Error }>,
): Promise<number | undefined> {
  const delayMs = verdict === 'retry' ? retryDelaysMs[failures] : undefined
  const line = { queue, eventId, attempt: failures + 1, err: error }
  const failure = { queue, executor, eventId, error: error.stack ?? error.message }
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
    await removeDeliveries(db, { queue, executor, eventIds: [eventId] })
  }
  return delayMs
}
