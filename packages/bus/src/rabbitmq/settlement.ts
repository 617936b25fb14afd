import type { Subscription } from '@cloudphone/contracts/topology'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Verdict } from '../bus.ts'
import type { BusCounts } from '../bus-metrics.ts'
import {
  bytesOf,
  deathHeaders,
  failureHeaders,
  failuresOf,
  firstFailedAtOf,
  type Outgoing,
} from './message.ts'
import type { Publisher } from './publisher.ts'
import { DEAD_LETTER_EXCHANGE, deadKeyOf, ladderOf } from './topology.ts'

/** Carries out what a consumer decided about a delivery. */
export interface Settlement {
  /**
   * Answers a delivery on its channel: at once when it is done, else when the broker has confirmed its copy in the
   * ladder or in the dead letters. On a channel that is gone nothing is answered, and the broker delivers it again.
   */
  settle(
    inHand: { channel: Channel; message: AsyncMessage },
    what: {
      subscription: Subscription
      verdict: Exclude<Verdict, { verdict: 'release' }>
      isClosing: () => boolean
    },
  ): Promise<void>
  /** Of each queue, what this process has put off and has not seen again. */
  delayed(queue: string): number
  /** Whether something that was put off should be back by now. */
  isOverdue(): boolean
}

export interface SettlementOptions {
  readonly publisher: Publisher
  /** Declares everything again. */
  readonly declare: () => Promise<void>
  readonly retryDelaysMs: readonly number[]
  readonly clock: Clock
  readonly log: Logger
  readonly counts: BusCounts
}

const FIRST_BACKOFF_MS = 50
const MAX_BACKOFF_MS = 2_000
/** After that, another process has taken it. */
const SEEN_ELSEWHERE_MS = 5_000

export function openSettlement(options: SettlementOptions): Settlement {
  const { publisher, declare, retryDelaysMs, clock, log, counts } = options
  const delayed = new Map<string, { queue: string; dueAtMs: number }>()

  /** Sends a copy on its way, once at least and then again and again; false when the original will come again instead. */
  const forward = async (outgoing: Outgoing, isLost: () => boolean): Promise<boolean> => {
    for (let backoffMs = FIRST_BACKOFF_MS; ; backoffMs = Math.min(backoffMs * 2, MAX_BACKOFF_MS)) {
      try {
        const [outcome] = await publisher.send([outgoing])
        if (outcome?.outcome === 'accepted') return true
        log.error({ event: 'bus.forward_refused', exchange: outgoing.exchange, outcome })
        await declare()
      } catch (error) {
        log.warn({ event: 'bus.forward_failed', exchange: outgoing.exchange, err: error })
      }
      if (isLost()) return false
      await clock.sleep(backoffMs)
    }
  }

  const fail = async (
    message: AsyncMessage,
    { queue, critical }: Subscription,
    { verdict, error }: Extract<Verdict, { error: Error }>,
    isLost: () => boolean,
  ): Promise<boolean> => {
    const failures = failuresOf(message) + 1
    const delayMs = verdict === 'retry' ? retryDelaysMs[failures - 1] : undefined
    const eventId = message.messageId ?? ''
    const line = { queue, eventId, attempt: failures, err: error }
    const now = clock.now()
    const history = {
      failures,
      error: error.stack ?? error.message,
      firstFailedAt: firstFailedAtOf(message) ?? now,
    }
    const copy = { mandatory: true, eventId, eventType: message.type ?? '', body: bytesOf(message) }
    if (delayMs !== undefined) {
      log.warn({ event: 'bus.delivery_failed', ...line, retryInMs: delayMs })
      const key = `${queue} ${eventId}`
      delayed.set(key, { queue, dueAtMs: clock.monotonicMs() + delayMs })
      const headers = failureHeaders(history)
      const sent = await forward({ ...copy, exchange: ladderOf(delayMs), routingKey: queue, headers }, isLost)
      if (sent) counts.retried.inc({ queue })
      else delayed.delete(key)
      return sent
    }
    if (!critical) {
      log.error({ event: 'bus.delivery_dropped', ...line })
      counts.dropped.inc({ queue })
      return true
    }
    log.error({ event: 'bus.delivery_dead', ...line })
    const headers = deathHeaders(history, now)
    const grave = { exchange: DEAD_LETTER_EXCHANGE, routingKey: deadKeyOf(queue), headers }
    const sent = await forward({ ...copy, ...grave }, isLost)
    if (sent) counts.dead.inc({ queue })
    return sent
  }

  return {
    async settle({ channel, message }, { subscription, verdict, isClosing }) {
      if (failuresOf(message) > 0) delayed.delete(`${subscription.queue} ${message.messageId ?? ''}`)
      if (!channel.active) return
      const answered =
        verdict.verdict === 'done' ||
        (await fail(message, subscription, verdict, () => isClosing() || !channel.active))
      // A copy that is on its way while the original comes again is refused by the consumer's inbox.
      if (answered && channel.active) channel.basicAck({ deliveryTag: message.deliveryTag })
    },
    delayed(queue) {
      return [...delayed.values()].filter((one) => one.queue === queue).length
    },
    isOverdue() {
      const nowMs = clock.monotonicMs()
      for (const [key, { dueAtMs }] of delayed) if (dueAtMs + SEEN_ELSEWHERE_MS < nowMs) delayed.delete(key)
      return [...delayed.values()].some(({ dueAtMs }) => dueAtMs <= nowMs)
    },
  }
}
