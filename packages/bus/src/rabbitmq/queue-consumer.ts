import { setImmediate as afterEvents } from 'node:timers/promises'
import type { Subscription } from '@cloudphone/contracts/topology'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Consumer, Delivery, HandleBatch, Verdict } from '../bus.ts'
import { type InHand, openDeliveries } from './deliveries.ts'
import type { Link } from './link.ts'
import type { Settlement } from './settlement.ts'
import { declareTopology } from './topology.ts'

export interface QueueConsumerOptions {
  readonly link: Link
  readonly subscription: Subscription
  readonly handle: (delivery: Delivery) => Promise<Verdict>
  readonly together: HandleBatch | undefined
  readonly prefetch: number
  readonly retryDelaysMs: readonly number[]
  readonly settlement: Settlement
  readonly clock: Clock
  readonly log: Logger
}

export interface QueueConsumer extends Consumer {
  /** Deliveries that are unfinished here. */
  readonly inHand: number
  /** Whether nothing came and nothing was unfinished or ready on the broker for a moment. */
  isIdle(): Promise<boolean>
}

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 2_000

/**
 * Consumes one queue until closed, over lost connections, restarted brokers and deleted queues. Resolves when the broker
 * has taken the consumer.
 * @throws Error when the broker cannot be reached or refuses the queue.
 */
export async function consumeQueue(options: QueueConsumerOptions): Promise<QueueConsumer> {
  const { subscription, clock, log } = options
  const { queue } = subscription
  const deliveries = openDeliveries(options)
  const closing = new AbortController()
  let attached = await attach(options, deliveries.take)

  const keep = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      const reason = await Promise.race([attached.lost, aborted(closing.signal)])
      if (closing.signal.aborted) return
      log.warn({ event: 'bus.consumer_lost', queue, reason })
      void retire(attached.channel, deliveries.drained(attached.channel))
      attached = (await reattach()) ?? attached
    }
  }
  const reattach = async (): Promise<Attached | undefined> => {
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)) {
      if (closing.signal.aborted) return undefined
      try {
        const again = await attach(options, deliveries.take)
        log.info({ event: 'bus.consumer_back', queue })
        return again
      } catch (error) {
        log.warn({ event: 'bus.consumer_not_back', queue, err: error })
        // Aborted: the loop looks.
        await clock.sleep(backoffMs, closing.signal).catch(() => undefined)
      }
    }
  }
  const keeping = keep()

  const close = async (): Promise<void> => {
    closing.abort(new Error('the consumer closes'))
    // What still waits stays unanswered: with the channel it goes back in its order, and before the next consumer begins.
    await deliveries.close()
    await keeping
    await attached.channel.close()
  }
  let closed: Promise<void> | undefined
  return {
    get inHand() {
      return deliveries.inHand
    },
    async isIdle() {
      const taken = deliveries.taken
      if (deliveries.inHand > 0 || !(await isEmpty(attached.channel, queue))) return false
      // Once more: what was on its way to us while we asked has come by now.
      return (await isEmpty(attached.channel, queue)) && deliveries.inHand === 0 && deliveries.taken === taken
    },
    close() {
      closed ??= close()
      return closed
    },
  }
}

interface Attached {
  readonly channel: Channel
  /** Resolves with the reason when nothing more will come over the channel. */
  readonly lost: Promise<string>
}

async function attach(
  { link, subscription, prefetch, retryDelaysMs }: QueueConsumerOptions,
  take: (inHand: InHand) => void,
): Promise<Attached> {
  const channel = await link.acquire()
  const lost = Promise.withResolvers<string>()
  let lastError = 'the channel was closed'
  channel.on('error', (error: unknown) => {
    lastError = String(error)
  })
  channel.on('close', () => lost.resolve(lastError))
  channel.on('basic.cancel', () => lost.resolve('the broker cancelled the consumer: its queue was deleted'))
  try {
    await declareTopology(channel, { subscriptions: [subscription], retryDelaysMs })
    await channel.basicQos({ prefetchCount: prefetch })
    await channel.basicConsume({ queue: subscription.queue }, (message: AsyncMessage) =>
      take({ channel, message }),
    )
    return { channel, lost: lost.promise }
  } catch (error) {
    await channel.close()
    throw new Error(
      `Queue ${subscription.queue}: ${error instanceof Error ? error.message : String(error)}`,
      {
        cause: error,
      },
    )
  }
}

/** What a deleted queue had given us is nowhere else: its channel stays until that is done. */
async function retire(channel: Channel, drained: Promise<void>): Promise<void> {
  await drained
  await channel.close()
}

async function isEmpty(channel: Channel, queue: string): Promise<boolean> {
  if (!channel.active) return false
  try {
    const { messageCount } = await channel.queueDeclare({ queue, passive: true })
    await afterEvents()
    return messageCount === 0
  } catch {
    // The channel was lost meanwhile: the consumer is about to come back.
    return false
  }
}

function aborted(signal: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve('closing')
    else signal.addEventListener('abort', () => resolve('closing'), { once: true })
  })
}
