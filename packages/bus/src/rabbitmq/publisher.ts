import { setImmediate as afterEvents } from 'node:timers/promises'
import type { Clock } from '@cloudphone/observe/clock'
import type { Channel } from 'rabbitmq-client'
import type { PublishOutcome } from '../bus.ts'
import type { Link } from './link.ts'
import { CONTENT_TYPE, type Outgoing } from './message.ts'

export interface Publisher {
  /**
   * Publishes in order and resolves when the broker has confirmed or refused each. Throws when it cannot be told: the
   * broker is away or takes nothing.
   */
  send(messages: readonly Outgoing[]): Promise<readonly PublishOutcome[]>
  close(): Promise<void>
}

export interface PublisherOptions {
  readonly link: Link
  readonly clock: Clock
  /** Called with each new channel, before anything is published on it. */
  readonly prepare: (channel: Channel) => Promise<void>
  readonly confirmTimeoutMs: number
}

interface Open {
  readonly channel: Channel
  /** Correlation ids of messages that no queue took. */
  readonly returned: Set<string>
}

/** One channel in confirm mode for everybody who publishes; opened again when it is lost. */
export function openPublisher({ link, clock, prepare, confirmTimeoutMs }: PublisherOptions): Publisher {
  let opened: Open | undefined
  let opening: Promise<Open> | undefined
  let sequence = 0
  let interrupted = Promise.withResolvers<never>()
  interrupted.promise.catch(ignoredUnlessRaced)
  link.onBlocked((reason) => {
    interrupted.reject(blockedError(reason))
    interrupted = Promise.withResolvers<never>()
    interrupted.promise.catch(ignoredUnlessRaced)
  })

  const open = async (): Promise<Open> => {
    const channel = await link.acquire()
    const returned = new Set<string>()
    channel.on('basic.return', ({ correlationId = '' }) => returned.add(correlationId))
    // Every confirm that is missing is rejected with it.
    channel.on('error', () => undefined)
    await prepare(channel)
    await channel.confirmSelect()
    return { channel, returned }
  }
  const current = async (): Promise<Open> => {
    if (opened?.channel.active) return opened
    opening ??= open().finally(() => {
      opening = undefined
    })
    opened = await opening
    return opened
  }

  return {
    async send(messages) {
      if (messages.length === 0) return []
      // The client would keep it in memory until the broker recovers; the sender's table is the better place.
      if (link.blocked !== undefined) throw blockedError(link.blocked)
      const { channel, returned } = await current()
      const stamped = messages.map((message) => ({ message, correlationId: String(++sequence) }))
      // Written one behind the other without a pause: their order is the order of this loop.
      const confirms = stamped.map(({ message, correlationId }) => publish(channel, message, correlationId))
      const timer = new AbortController()
      const settled = keptAsTheyCome(confirms)
      const timeout = clock.sleep(confirmTimeoutMs, timer.signal).then(() => {
        channel.close().catch(ignoredUnlessRaced)
        // One queue that has lost its leader confirms nothing, and must not hold up what all others have taken.
        if (settled.some((one) => one?.status === 'fulfilled')) return
        throw new Error(`RabbitMQ confirmed nothing for ${confirmTimeoutMs} ms`)
      })
      timeout.catch(ignoredUnlessRaced)
      await Promise.race([Promise.allSettled(confirms), interrupted.promise, timeout]).finally(() =>
        timer.abort(),
      )
      const known = [...settled]
      // A return comes before its confirm, but the client tells of it one round of events later.
      await afterEvents()
      return stamped.map(({ correlationId }, at) => {
        const wasReturned = returned.delete(correlationId)
        const one = known[at]
        if (one !== undefined) return outcomeOf(one, wasReturned)
        return { outcome: 'failed', error: `RabbitMQ did not confirm it within ${confirmTimeoutMs} ms` }
      })
    },
    async close() {
      const last = (await opening?.catch(() => undefined)) ?? opened
      await last?.channel.close()
    },
  }
}

function publish(channel: Channel, message: Outgoing, correlationId: string): Promise<void> {
  const { exchange, routingKey, mandatory, eventId, eventType, headers, body } = message
  return channel.basicPublish(
    {
      exchange,
      routingKey,
      mandatory,
      durable: true,
      contentType: CONTENT_TYPE,
      messageId: eventId,
      type: eventType,
      correlationId,
      headers: { ...headers },
    },
    body,
  )
}

/** What has become of each promise so far; undefined while nothing has. */
function keptAsTheyCome(promises: readonly Promise<void>[]): (PromiseSettledResult<void> | undefined)[] {
  const settled: (PromiseSettledResult<void> | undefined)[] = promises.map(() => undefined)
  for (const [at, promise] of promises.entries()) {
    promise.then(
      (value) => {
        settled[at] = { status: 'fulfilled', value }
      },
      (reason: unknown) => {
        settled[at] = { status: 'rejected', reason }
      },
    )
  }
  return settled
}

function outcomeOf(settled: PromiseSettledResult<void>, returned: boolean): PublishOutcome {
  if (settled.status === 'fulfilled') return { outcome: returned ? 'unroutable' : 'accepted' }
  const reason: unknown = settled.reason
  const error = reason instanceof Error ? reason : new Error(String(reason))
  // The broker's no to this one message; anything else is a lost channel, of which nothing is known.
  if ('code' in error && error.code === 'NACK') return { outcome: 'failed', error: error.message }
  throw error
}

function blockedError(reason: string): Error {
  return new Error(`RabbitMQ takes no messages at present: ${reason}`)
}

function ignoredUnlessRaced(): void {
  // Whoever waits for the promise hears of it; when nobody does, it is not an unhandled rejection.
}
