import type { Clock } from '@cloudphone/observe/clock'
import type { AsyncMessage, Channel } from 'rabbitmq-client'
import type { Bus, DeadLetter } from '../bus.ts'
import type { Link } from './link.ts'
import { bytesOf, deadLetterOf } from './message.ts'
import type { Publisher } from './publisher.ts'
import { deadQueueOf } from './topology.ts'

/* A queue cannot be read without taking from it. So whoever looks takes the oldest letters unanswered, and gives them back
 * all at once: to a quorum queue with a delivery limit they return to the front in the order in which they were taken.
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
        for (const one of wanted(queue)) found.push(...(await look(options, one, async (held) => held)))
        return found.map(({ letter }) => letter)
      }),
    )
    return distinct(letters).toSorted((a, b) => (a.id < b.id ? -1 : 1))
  }

  const replay = (queue: string | undefined, id: string | undefined): Promise<number> =>
    inTurn(() =>
      withLock(options, async () => {
        let replayed = 0
        for (const one of wanted(queue)) {
          for (let more = true; more; ) {
            const ids = await look(options, one, async (held, answer) => {
              const chosen = held.filter(({ letter }) => id === undefined || letter.id === id)
              const copies = held.filter(({ letter }) =>
                chosen.some((one) => one.letter.eventId === letter.eventId),
              )
              await putBack(publisher, one, chosen)
              answer(copies)
              return distinct(chosen.map(({ letter }) => letter))
            })
            replayed += ids.length
            if (id !== undefined && ids.length > 0) return replayed
            more = id === undefined && ids.length > 0
          }
        }
        return replayed
      }),
    )

  return {
    async list({ queue, limit = DEFAULT_LIMIT, after = '' } = {}) {
      return (await all(queue)).filter(({ id }) => id > after).slice(0, limit)
    },
    get: async (id) => (await all(undefined)).find((letter) => letter.id === id),
    replay: async (id) => (await replay(undefined, id)) > 0,
    replayAll: ({ queue } = {}) => replay(queue, undefined),
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
  { link, clock }: DeadLettersOptions,
  queue: string,
  work: (held: readonly Held[], answer: (held: readonly Held[]) => void) => Promise<Result>,
): Promise<Result> {
  const channel = await link.acquire()
  channel.on('error', () => undefined)
  try {
    const count = Math.min(await countOf(channel, deadQueueOf(queue)), WINDOW)
    if (count === 0) return await work([], () => undefined)
    const messages = await takeFrom(channel, { queue: deadQueueOf(queue), count, clock })
    const answered = new Set<AsyncMessage>()
    try {
      return await work(
        messages.map((message) => ({ letter: deadLetterOf(queue, message), message })),
        (held) => {
          for (const { message } of held) {
            answered.add(message)
            channel.basicAck({ deliveryTag: message.deliveryTag })
          }
        },
      )
    } finally {
      const left = messages.filter((message) => !answered.has(message))
      await giveBack(channel, { queue: deadQueueOf(queue), left, clock })
    }
  } finally {
    await channel.close()
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

/** Resolves when the queue shows them again: who holds the lock next must see them. */
async function giveBack(
  channel: Channel,
  { queue, left, clock }: { queue: string; left: readonly AsyncMessage[]; clock: Clock },
): Promise<void> {
  const last = left.at(-1)
  if (last === undefined || !channel.active) return
  channel.basicNack({ deliveryTag: last.deliveryTag, multiple: true, requeue: true })
  while ((await countOf(channel, queue)) < left.length) await clock.sleep(RETURN_LOOK_MS)
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
