import type { Subscription } from '@cloudphone/contracts/topology'
import type { Channel } from 'rabbitmq-client'

/* What lies on the broker. Events go to the topic exchange under their name; a failed delivery goes to the ladder queue
 * of its delay under the name of its own queue, and from there through the default exchange back into it; what failed
 * for good goes to the dead-letter exchange under `<queue>.failed` (decisions 21 to 23).
 */
export const EVENTS_EXCHANGE = 'cloudphone.events'
export const DEAD_LETTER_EXCHANGE = 'cloudphone.dlx'

// As many consumers may die with a delivery in hand, or give it back, before the broker calls it dead: also deploys and
// broker restarts count, so it must not be small (decision 23 and reliability of quorum queues).
export const DELIVERY_LIMIT = 20

// RabbitMQ 4 gives quorum queues a limit of 20 when none is named, and each look at a dead letter would count.
const LOOKED_AT_WITHOUT_END = 1_000_000_000

export function deadQueueOf(queue: string): string {
  return `${queue}.dead`
}

export function deadKeyOf(queue: string): string {
  return `${queue}.failed`
}

/** The queue, and the exchange before it, in which deliveries wait that long for their next try. */
export function ladderOf(delayMs: number): string {
  return `cloudphone.retry.${delayMs}ms`
}

/** The two exchanges: without them a publish closes its channel instead of coming back. */
export async function declareExchanges(channel: Channel): Promise<void> {
  for (const exchange of [EVENTS_EXCHANGE, DEAD_LETTER_EXCHANGE]) {
    await channel.exchangeDeclare({ exchange, type: 'topic', durable: true })
  }
}

/** Everything there is to declare. Idempotent; what is there with other arguments is an error of the broker. */
export async function declareTopology(
  channel: Channel,
  {
    subscriptions,
    retryDelaysMs,
  }: { subscriptions: readonly Subscription[]; retryDelaysMs: readonly number[] },
): Promise<void> {
  await declareExchanges(channel)
  for (const delayMs of new Set(retryDelaysMs)) await declareLadder(channel, delayMs)
  for (const subscription of subscriptions) await declareSubscription(channel, subscription)
}

/** One queue with its bindings and its dead letters. */
async function declareSubscription(channel: Channel, { queue, events }: Subscription): Promise<void> {
  await channel.queueDeclare({
    queue: deadQueueOf(queue),
    durable: true,
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': LOOKED_AT_WITHOUT_END },
  })
  await channel.queueBind({
    queue: deadQueueOf(queue),
    exchange: DEAD_LETTER_EXCHANGE,
    routingKey: deadKeyOf(queue),
  })
  await channel.queueDeclare({
    queue,
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      // Two consumers side by side would break the order within an aggregate; the second one takes over when the first ends.
      'x-single-active-consumer': true,
      'x-delivery-limit': DELIVERY_LIMIT,
      'x-dead-letter-exchange': DEAD_LETTER_EXCHANGE,
      'x-dead-letter-routing-key': deadKeyOf(queue),
      ...movedSafely,
    },
  })
  for (const { name } of events) {
    await channel.queueBind({ queue, exchange: EVENTS_EXCHANGE, routingKey: name })
  }
}

/** Messages that the broker itself moves to another queue leave this one only when they are safe there. */
const movedSafely = { 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish' } as const

async function declareLadder(channel: Channel, delayMs: number): Promise<void> {
  const name = ladderOf(delayMs)
  await channel.exchangeDeclare({ exchange: name, type: 'fanout', durable: true })
  await channel.queueDeclare({
    queue: name,
    durable: true,
    // One delay per queue: a message behind one that expires later would wait for it. No dead-letter key, so that the
    // message keeps its own, which is the queue it comes from.
    arguments: {
      'x-queue-type': 'quorum',
      'x-message-ttl': delayMs,
      'x-dead-letter-exchange': '',
      ...movedSafely,
    },
  })
  await channel.queueBind({ queue: name, exchange: name, routingKey: '' })
}
