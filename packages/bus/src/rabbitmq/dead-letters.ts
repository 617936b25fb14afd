import type { Clock } from '@cloudphone/observe/clock'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Bus, DeadLetter } from '../bus.ts'
import type { Link } from './link.ts'
import { bytesOf, deadLetterOf } from './message.ts'
import type { Publisher } from './publisher.ts'
import { deadQueueOf } from './topology.ts'

/* A queue cannot be read without taking from it. So whoever looks takes the oldest letters unanswered and closes the
 * channel: then they return to the front of the queue in their order. (basic.nack of more than 32 at once mixes
 * them up: tried on 3.10.8.)
 * Meanwhile they are not there for others; therefore one may look at a time, on the whole broker: it holds an exclusive
 * queue, which vanishes with its connection. If it dies, the broker gives the letters back. */

export interface DeadLettersOptions {
  readonly link: Link
  readonly publisher: Publisher
  readonly queues: readonly string[]
  readonly clock: Clock
}

const LOCK = 'cloudphone.dead-letters.lock'
const LOCK_WITHIN_MS = 20_000
const LOCK_LOOK_MS = 25
const TAKE_WITHIN_MS = 10_000
const RETURN_LOOK_MS = 2
const RETURN_WITHIN_MS = 5_000
const DEFAULT_LIMIT = 100

/** So many of a queue can be seen; those behind them after some of these are gone. */
const WINDOW = 10_000

/** A letter, and every copy of it: the broker may hold one event twice. */
interface Held {
  readonly letter: DeadLetter
  readonly message: AsyncMessage
}

/** Opens what operators see of the dead letters. */
export function openDeadLetters(options: DeadLettersOptions): Bus['deadLetters'] {
  const { queues, publisher } = options
  let last: Promise<unknown> = Promise.resolve()
  /** One at a time in this process too: the lock is the connection's. */
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const result = last.then(work)
    last = result.catch(() => undefined)
    return result
  }
  const wanted = (queue: string | undefined): readonly string[] =>
    queue === undefined ? queues : queues.filter((one) => one === queue)

  const all = async (queue: string | undefined): Promise<readonly DeadLetter[]> => {
    const letters = await inTurn(() =>
      withLock(options, async () => {
        const found: Held[] = []
        for (const one of wanted(queue)) {
          found.push(...(await look(options, { queue: one, most: WINDOW }, async (held) => held)))
        }
        return found.map(({ letter }) => letter)
      }),
    )
    return distinct(letters).toSorted((a, b) => (a.id < b.id ? -1 : 1))
  }

  const replayOne = (id: string): Promise<boolean> =>
    inTurn(() =>
      withLock(options, async () => {
        for (const queue of queues) {
          const found = await look(options, { queue, most: WINDOW }, async (held, answer) => {
            const chosen = held.find(({ letter }) => letter.id === id)
            if (chosen === undefined) return false
            await putBack(publisher, queue, [chosen])
            answer(held.filter(({ letter }) => letter.eventId === chosen.letter.eventId))
            return true
          })
          if (found) return true
        }
        return false
      }),
    )

  const replayQueue = async (queue: string): Promise<number> => {
    let replayed = 0
    // No more than there are now: what dies again meanwhile is behind them, and would come round for ever.
    for (let left = await letterCount(options, queue); left > 0; ) {
      const taken = await look(options, { queue, most: Math.min(left, WINDOW) }, async (held, answer) => {
        const letters = distinct(held.map(({ letter }) => letter))
        await putBack(
          publisher,
          queue,
          held.filter(({ letter }) => letters.includes(letter)),
        )
        answer(held)
        replayed += letters.length
        return held.length
      })
      if (taken === 0) break
      left -= taken
    }
    return replayed
  }

  return {
    async list({ queue, limit = DEFAULT_LIMIT, after = '' } = {}) {
      return (await all(queue)).filter(({ id }) => id > after).slice(0, limit)
    },
    get: async (id) => (await all(undefined)).find((letter) => letter.id === id),
    replay: replayOne,
    replayAll: ({ queue } = {}) =>
      inTurn(() =>
        withLock(options, async () => {
          let replayed = 0
          for (const one of wanted(queue)) replayed += await replayQueue(one)
          return replayed
        }),
      ),
  }
}

/** Published before they are taken away: a crash between the two leaves a letter whose event the inbox knows. */
async function putBack(publisher: Publisher, queue: string, held: readonly Held[]): Promise<void> {
  const outcomes = await publisher.send(
    held.map(({ letter, message }) => ({
      exchange: '',
      routingKey: queue,
      mandatory: true,
      eventId: letter.eventId,
      eventType: letter.eventType,
      headers: {},
      body: bytesOf(message),
    })),
  )
  const refused = outcomes.find(({ outcome }) => outcome !== 'accepted')
  if (refused !== undefined) throw new Error(`Queue ${queue} took no dead letter back: ${refused.outcome}`)
}

/** Takes the letters of a queue, lets `work` see them and answer some for good, and gives the others back. */
async function look<Result>(
  options: DeadLettersOptions,
  { queue, most }: { queue: string; most: number },
  work: (held: readonly Held[], answer: (held: readonly Held[]) => void) => Promise<Result>,
): Promise<Result> {
  const { link, clock } = options
  const channel = await link.acquire()
  channel.on('error', () => undefined)
  let left = 0
  try {
    const count = Math.min(await countOf(channel, deadQueueOf(queue)), most)
    if (count === 0) return await work([], () => undefined)
    const messages = await takeFrom(channel, { queue: deadQueueOf(queue), count, clock })
    left = count
    return await work(
      messages.map((message) => ({ letter: deadLetterOf(queue, message), message })),
      (held) => {
        left -= held.length
        for (const { message } of held) channel.basicAck({ deliveryTag: message.deliveryTag })
      },
    )
  } finally {
    await channel.close()
    // Whoever holds the lock next must see them. The limit is for a queue that was deleted meanwhile.
    const untilMs = clock.monotonicMs() + RETURN_WITHIN_MS
    while ((await letterCount(options, queue)) < left && clock.monotonicMs() < untilMs) {
      await clock.sleep(RETURN_LOOK_MS)
    }
  }
}

async function takeFrom(
  channel: Channel,
  { queue, count, clock }: { queue: string; count: number; clock: Clock },
): Promise<readonly AsyncMessage[]> {
  const messages: AsyncMessage[] = []
  const full = Promise.withResolvers<void>()
  channel.on('close', () => full.reject(new Error(`Queue ${queue}: the channel was lost`)))
  await channel.basicQos({ prefetchCount: count })
  const { consumerTag } = await channel.basicConsume({ queue }, (message: AsyncMessage) => {
    messages.push(message)
    if (messages.length === count) full.resolve()
  })
  const timer = new AbortController()
  const late = clock.sleep(TAKE_WITHIN_MS, timer.signal).then(() => {
    throw new Error(
      `Queue ${queue}: ${messages.length} of ${count} dead letters came within ${TAKE_WITHIN_MS} ms`,
    )
  })
  // Aborted when they have come.
  late.catch(() => undefined)
  await Promise.race([full.promise, late]).finally(() => timer.abort())
  await channel.basicCancel({ consumerTag })
  return messages
}

async function letterCount({ link }: DeadLettersOptions, queue: string): Promise<number> {
  const channel = await link.acquire()
  channel.on('error', () => undefined)
  try {
    return await countOf(channel, deadQueueOf(queue))
  } finally {
    await channel.close()
  }
}

/** Zero for a queue that is not declared yet: it holds nothing. */
async function countOf(channel: Channel, queue: string): Promise<number> {
  try {
    return (await channel.queueDeclare({ queue, passive: true })).messageCount
  } catch (error) {
    if (isNotFound(error)) return 0
    throw error
  }
}

/** The broker's answer to a passive declaration of what is not there; it closes the channel too. */
export function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'NOT_FOUND'
}

async function withLock<Result>(
  { link, clock }: DeadLettersOptions,
  work: () => Promise<Result>,
): Promise<Result> {
  const untilMs = clock.monotonicMs() + LOCK_WITHIN_MS
  for (;;) {
    const channel = await link.acquire()
    channel.on('error', () => undefined)
    try {
      await channel.queueDeclare({ queue: LOCK, exclusive: true, durable: false })
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'RESOURCE_LOCKED')) throw error
      if (clock.monotonicMs() > untilMs) {
        throw new Error(`Another process has been reading the dead letters for ${LOCK_WITHIN_MS} ms`, {
          cause: error,
        })
      }
      await clock.sleep(LOCK_LOOK_MS)
      continue
    }
    try {
      return await work()
    } finally {
      if (channel.active) await channel.queueDelete({ queue: LOCK })
      await channel.close()
    }
  }
}

/** The oldest of each event and queue. */
function distinct(letters: readonly DeadLetter[]): readonly DeadLetter[] {
  const seen = new Map<string, DeadLetter>()
  for (const letter of letters) {
    const key = `${letter.queue} ${letter.eventId}`
    const known = seen.get(key)
    if (known === undefined || letter.id < known.id) seen.set(key, letter)
  }
  return [...seen.values()]
}
