import { EventEnvelope } from '@cloudphone/contracts/event'
import type { Subscription } from '@cloudphone/contracts/topology'
import type { Clock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Delivery, Verdict } from '../bus.ts'
import { contentOf, failuresOf } from './message.ts'
import type { Settlement } from './settlement.ts'

/** A delivery that is ours until it is answered on its channel, or that channel is gone. */
export interface InHand {
  readonly channel: Channel
  readonly message: AsyncMessage
}

/** Runs deliveries of one aggregate one after the other, of different ones side by side. */
export interface Lines {
  take(inHand: InHand): void
  readonly inHand: number
  /** How many ever came. */
  readonly taken: number
  /** Resolves when nothing that came over the channel is unfinished. */
  drained(channel: Channel): Promise<void>
  /** Starts nothing more and resolves when what runs is answered. */
  close(): Promise<void>
}

export interface LinesOptions {
  readonly subscription: Subscription
  readonly handle: (delivery: Delivery) => Promise<Verdict>
  readonly settlement: Settlement
  readonly clock: Clock
  readonly log: Logger
}

interface Waiting extends InHand {
  readonly envelope: ReturnType<typeof EventEnvelope.safeParse>
}

// Whoever gave it back was not ready: to deliver it at once again would only burn time, and the broker counts.
const RELEASE_DELAY_MS = 50

export function openLines(options: LinesOptions): Lines {
  const { subscription, handle, settlement, clock, log } = options
  const { queue } = subscription
  const lines = new Map<string, Waiting[]>()
  const running = new Set<Promise<void>>()
  const ended = new EventTarget()
  let closing = false
  let taken = 0

  const run = async ({ message, envelope }: Waiting): Promise<Verdict> => {
    if (!envelope.success) {
      return { verdict: 'dead', error: new Error(`not a CloudEvents envelope: ${envelope.error.message}`) }
    }
    try {
      return await handle({ queue, envelope: envelope.data, attempt: failuresOf(message) + 1 })
    } catch (error) {
      return { verdict: 'retry', error: error instanceof Error ? error : new Error(String(error)) }
    }
  }

  /** Gives back the whole line, in its order: the next of the aggregate must not come first. */
  const release = async (line: Waiting[]): Promise<void> => {
    if (closing) return
    await clock.sleep(RELEASE_DELAY_MS)
    for (const { channel, message } of line.splice(0)) {
      if (channel.active) channel.basicNack({ deliveryTag: message.deliveryTag, requeue: true })
    }
  }

  const runLine = async (aggregate: string, line: Waiting[]): Promise<void> => {
    for (let next = line[0]; next !== undefined && !closing; next = line[0]) {
      if (!next.channel.active) {
        line.shift()
        continue
      }
      const verdict = await run(next)
      if (verdict.verdict === 'release') await release(line)
      else await settlement.settle(next, { subscription, verdict, isClosing: () => closing })
      if (line[0] === next) line.shift()
      ended.dispatchEvent(new Event('one'))
    }
    lines.delete(aggregate)
  }

  return {
    take(inHand) {
      taken += 1
      const waiting = { ...inHand, envelope: EventEnvelope.safeParse(contentOf(inHand.message)) }
      const aggregate = aggregateOf(waiting, taken)
      const line = lines.get(aggregate)
      if (line !== undefined) {
        line.push(waiting)
        return
      }
      const own = [waiting]
      lines.set(aggregate, own)
      const promise = runLine(aggregate, own).catch((error: unknown) => {
        // Neither handler nor settlement throws; if one does, the broker delivers it again when the channel closes.
        log.error({ event: 'bus.line_failed', queue, err: error })
        lines.delete(aggregate)
      })
      running.add(promise)
      void promise.finally(() => running.delete(promise))
    },
    get inHand() {
      return [...lines.values()].reduce((sum, line) => sum + line.length, 0)
    },
    get taken() {
      return taken
    },
    drained(channel) {
      const isDrained = (): boolean =>
        ![...lines.values()].some((line) => line.some((waiting) => waiting.channel === channel))
      return new Promise((resolve) => {
        const look = (): void => {
          if (!isDrained() && !closing) return
          ended.removeEventListener('one', look)
          resolve()
        }
        ended.addEventListener('one', look)
        look()
      })
    },
    async close() {
      closing = true
      await Promise.all(running)
      lines.clear()
      ended.dispatchEvent(new Event('one'))
    },
  }
}

/** What is no event stands alone. */
function aggregateOf({ envelope }: Waiting, taken: number): string {
  if (!envelope.success) return `none ${taken}`
  return `${envelope.data.aggregatetype}:${envelope.data.subject}`
}
