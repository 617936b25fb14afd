import { EventEnvelope } from '@cloudphone/contracts/event'
import type { Clock } from '@cloudphone/observe/clock'
import type { Consumer, Delivery, Fate, HandleBatch, Verdict } from '../bus.ts'
import { openLines } from '../lines.ts'
import { openWake } from '../wake.ts'
import { type Claimed, settleAndClaim } from './deliveries.ts'
import { type Finished, type SettlementOptions, settleOthers } from './settlement.ts'

export interface QueueConsumerOptions extends SettlementOptions {
  readonly handle: (delivery: Delivery) => Promise<Verdict>
  readonly together: HandleBatch | undefined
  readonly prefetch: number
  /** The executor to claim under; null while there is none, or its heartbeat is not known to be young. */
  readonly executor: () => string | null
  readonly clock: Clock
}

export interface QueueConsumer extends Consumer {
  /** There may be something to claim. */
  wake(): void
}

/** A delivery with its envelope read, or why that cannot be done. */
interface InHand {
  readonly claimed: Claimed
  readonly read: Delivery | Error
}

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 2_000
const MAX_REST_MS = 60_000

/**
 * Consumes one queue until closed. A single loop settles what has finished and claims what is free, both in one round
 * trip: batches grow by themselves under load, and a claim never races with the settling of what it must wait for.
 */
export function consumeQueue(options: QueueConsumerOptions): QueueConsumer {
  const { db, queue, prefetch, clock, log } = options
  const wake = openWake(clock)
  let mayClaim = true
  let closing = false
  // When the retries that were put off here are due, on our own clock; those of other processes are found by the poll.
  let retriesDueAtMs: number[] = []
  let finished: Finished[] = []
  let inHand = 0
  // Aggregates with a retry that is not yet written: a claim that was under way may still bring in their next delivery.
  const broken = new Set<string>()

  const finish = (claimed: Claimed, verdict: Verdict, breaks = false): void => {
    finished.push({ claimed, verdict, breaks })
    wake.raise()
  }
  const release = (items: readonly InHand[]): void => {
    for (const { claimed } of items) finish(claimed, { verdict: 'release' })
  }
  const lines = openLines<InHand>({
    aggregateOf: ({ claimed }) => claimed.aggregate,
    // Whoever failed, or was in the hands of the dead more than once, may do so again, and shall not take others with it.
    wayOf: ({ claimed, read }) =>
      read instanceof Error || claimed.failures > 0 || claimed.abandoned > 1 ? 'alone' : 'together',
    alone: ({ read }) => handleOne(options, read),
    together: batchOf(options),
    committed: (items) => {
      for (const { claimed } of items) finish(claimed, { verdict: 'done' })
    },
    // When one is to be tried again, those behind it are released, so that none of them overtakes it.
    finished: ({ claimed }, verdict, rest) => {
      const breaks = verdict.verdict === 'retry' || verdict.verdict === 'release'
      if (breaks) broken.add(claimed.aggregate)
      finish(claimed, verdict, breaks)
      if (breaks) release(rest())
      return undefined
    },
    dropped: () => undefined,
    left: release,
  })

  const take = (claimed: Claimed): void => {
    inHand += 1
    const one = { claimed, read: read(queue, claimed) }
    if (broken.has(claimed.aggregate)) release([one])
    else lines.add(one)
  }

  /** One round trip: what is done leaves the queue, and as many come in. */
  const turn = async (): Promise<void> => {
    const written = finished
    finished = []
    const executor = options.executor()
    const done = Map.groupBy(
      written.filter(({ verdict }) => verdict.verdict === 'done'),
      ({ claimed }) => claimed.executor,
    )
    const free = prefetch - inHand + written.length
    const most = closing || !mayClaim || executor === null ? 0 : free
    // Lowered before the statement is sent: a wake-up that comes while it runs must not be lost.
    if (most > 0) mayClaim = false
    try {
      // First what fails: what is done here and claimed next may have waited behind it.
      for (const delayMs of await settleOthers(options, written)) {
        retriesDueAtMs.push(clock.monotonicMs() + delayMs)
      }
      let claimed: readonly Claimed[] = []
      const owners = new Set([...done.keys(), ...(most > 0 && executor !== null ? [executor] : [])])
      for (const owner of owners) {
        const positions = (done.get(owner) ?? []).map((one) => one.claimed.position)
        const got = await settleAndClaim(db, {
          queue,
          executor: owner,
          done: positions,
          most: owner === executor ? most : 0,
        })
        if (owner === executor) claimed = got
      }
      inHand -= written.length
      for (const one of written) if (one.breaks) broken.delete(one.claimed.aggregate)
      if (most > 0 && claimed.length === most) mayClaim = true
      for (const one of claimed) take(one)
    } catch (error) {
      if (most > 0) mayClaim = true
      // What could not be written is finished still.
      finished = [...written, ...finished]
      throw error
    }
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
    while (!closing || inHand > 0) {
      try {
        await turn()
        if (closing && inHand === 0) return
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
      const ended = lines.close()
      wake.raise()
      await Promise.all([ended, running])
    },
  }
}

/** Reads the envelope of a delivery. */
function read(queue: string, { envelope, failures }: Claimed): Delivery | Error {
  try {
    const parsed = EventEnvelope.safeParse(JSON.parse(envelope))
    if (parsed.success) return { queue, envelope: parsed.data, attempt: failures + 1 }
    return new Error(`not a CloudEvents envelope: ${parsed.error.message}`)
  } catch (error) {
    // Impossible in a column of type json, but what is taken as read here is not written by us alone.
    return new Error(`not JSON: ${String(error)}`)
  }
}

async function handleOne({ handle }: QueueConsumerOptions, delivery: Delivery | Error): Promise<Verdict> {
  if (delivery instanceof Error) return { verdict: 'dead', error: delivery }
  try {
    return await handle(delivery)
  } catch (error) {
    return { verdict: 'retry', error: error instanceof Error ? error : new Error(String(error)) }
  }
}

function batchOf({
  together,
  queue,
  log,
}: QueueConsumerOptions): ((items: readonly InHand[]) => Promise<readonly Fate[]>) | undefined {
  if (together === undefined) return undefined
  return async (items) => {
    try {
      return await together(items.flatMap(({ read }) => (read instanceof Error ? [] : [read])))
    } catch (error) {
      log.warn({ event: 'bus.batch_failed', queue, deliveries: items.length, err: error })
      return items.map(() => 'alone')
    }
  }
}
