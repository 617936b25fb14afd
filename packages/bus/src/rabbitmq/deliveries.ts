import { EventEnvelope } from '@cloudphone/contracts/event'
import type { Subscription } from '@cloudphone/contracts/topology'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Delivery, Fate, HandleBatch, Verdict } from '../bus.ts'
import { openLines } from '../lines.ts'
import { contentOf, failuresOf, timesGivenBack } from './message.ts'
import type { Settlement } from './settlement.ts'

/** A message that is ours until it is answered on its channel, or that channel is gone. */
export interface InHand {
  readonly channel: Channel
  readonly message: AsyncMessage
}

/** Everything that one consumer has in hand, on its way to the handlers and back to the broker. */
export interface Deliveries {
  take(inHand: InHand): void
  readonly inHand: number
  /** How many ever came. */
  readonly taken: number
  /** Resolves when nothing that came over the channel is unfinished. */
  drained(channel: Channel): Promise<void>
  /** Starts nothing more and resolves when what runs is answered. What waits stays unanswered. */
  close(): Promise<void>
}

export interface DeliveriesOptions {
  readonly subscription: Subscription
  readonly handle: (delivery: Delivery) => Promise<Verdict>
  readonly together: HandleBatch | undefined
  readonly settlement: Settlement
  readonly clock: Clock
  readonly log: Logger
}

/** A message with its envelope read, or why that cannot be done. */
interface Waiting extends InHand {
  readonly aggregate: string
  readonly read: Delivery | Error
}

// Whoever gave it back was not ready: to deliver it at once again would only burn time, and the broker counts.
const RELEASE_DELAY_MS = 50

export function openDeliveries(options: DeliveriesOptions): Deliveries {
  const { subscription, settlement, clock } = options
  // In the order in which they came, which is the order of the tags of their channel.
  const unfinished = new Set<Waiting>()
  const ended = new EventTarget()
  let closing = false
  let taken = 0

  const end = (items: readonly Waiting[]): void => {
    for (const item of items) unfinished.delete(item)
    if (items.length > 0) ended.dispatchEvent(new Event('some'))
  }

  /** Gives back the whole line, in its order: the next of the aggregate must not come first. */
  const release = async (item: Waiting, rest: () => readonly Waiting[]): Promise<void> => {
    if (!closing) await clock.sleep(RELEASE_DELAY_MS)
    if (closing) return
    const all = [item, ...rest()]
    for (const { channel, message } of all) {
      if (channel.active) channel.basicNack({ deliveryTag: message.deliveryTag, requeue: true })
    }
    end(all)
  }

  const settle = async (item: Waiting, verdict: Exclude<Verdict, { verdict: 'release' }>): Promise<void> => {
    await settlement.settle(item, { subscription, verdict, isClosing: () => closing })
    end([item])
  }

  const lines = openLines<Waiting>({
    aggregateOf: ({ aggregate }) => aggregate,
    wayOf: ({ channel, message, read }) => {
      // The broker gives it to somebody again, or has done so.
      if (!channel.active) return 'dropped'
      // Whoever failed, or was in the hands of the dead more than once, may do so again, and shall not take others with it.
      const isSuspect = read instanceof Error || failuresOf(message) > 0 || timesGivenBack(message) > 1
      return isSuspect ? 'alone' : 'together'
    },
    alone: ({ read }) => handleOne(options, read),
    together: batchOf(options),
    committed: (items) => {
      end(items)
      acknowledge(items, unfinished)
    },
    finished: (item, verdict, rest) =>
      verdict.verdict === 'release' ? release(item, rest) : settle(item, verdict),
    dropped: (item) => end([item]),
    // With the channel it goes back in its order. Unfinished until then, or an answer to what came after it would be taken
    // for an answer to it too.
    left: () => undefined,
  })

  return {
    take(inHand) {
      taken += 1
      const read = readMessage(subscription.queue, inHand.message)
      // What is no event stands alone.
      const aggregate =
        read instanceof Error ? `none ${taken}` : `${read.envelope.aggregatetype}:${read.envelope.subject}`
      const waiting = { ...inHand, read, aggregate }
      unfinished.add(waiting)
      lines.add(waiting)
    },
    get inHand() {
      return unfinished.size
    },
    get taken() {
      return taken
    },
    drained(channel) {
      const isDrained = (): boolean => ![...unfinished].some((waiting) => waiting.channel === channel)
      return new Promise((resolve) => {
        const look = (): void => {
          if (!isDrained() && !closing) return
          ended.removeEventListener('some', look)
          resolve()
        }
        ended.addEventListener('some', look)
        look()
      })
    },
    async close() {
      closing = true
      await lines.close()
      unfinished.clear()
      ended.dispatchEvent(new Event('some'))
    },
  }
}

/**
 * Answers what is committed: by one frame up to the first that is unfinished, since the broker writes down every answer,
 * and one by one from there on.
 */
function acknowledge(items: readonly Waiting[], unfinished: ReadonlySet<Waiting>): void {
  for (const [channel, own] of Map.groupBy(items, (item) => item.channel)) {
    if (!channel.active) continue
    let firstOpen = Number.POSITIVE_INFINITY
    for (const waiting of unfinished) {
      if (waiting.channel !== channel) continue
      firstOpen = waiting.message.deliveryTag
      break
    }
    const tags = own.map(({ message }) => message.deliveryTag).toSorted((one, other) => one - other)
    const upTo = tags.findLast((tag) => tag < firstOpen)
    if (upTo !== undefined) channel.basicAck({ deliveryTag: upTo, multiple: true })
    for (const tag of tags) if (tag > firstOpen) channel.basicAck({ deliveryTag: tag })
  }
}

function readMessage(queue: string, message: AsyncMessage): Delivery | Error {
  const parsed = EventEnvelope.safeParse(contentOf(message))
  if (parsed.success) return { queue, envelope: parsed.data, attempt: failuresOf(message) + 1 }
  return new Error(`not a CloudEvents envelope: ${parsed.error.message}`)
}

async function handleOne({ handle }: DeliveriesOptions, read: Delivery | Error): Promise<Verdict> {
  if (read instanceof Error) return { verdict: 'dead', error: read }
  try {
    return await handle(read)
  } catch (error) {
    return { verdict: 'retry', error: error instanceof Error ? error : new Error(String(error)) }
  }
}

function batchOf({
  together,
  subscription,
  log,
}: DeliveriesOptions): ((items: readonly Waiting[]) => Promise<readonly Fate[]>) | undefined {
  if (together === undefined) return undefined
  return async (items) => {
    try {
      return await together(items.flatMap(({ read }) => (read instanceof Error ? [] : [read])))
    } catch (error) {
      log.warn({ event: 'bus.batch_failed', queue: subscription.queue, deliveries: items.length, err: error })
      return items.map(() => 'alone')
    }
  }
}
