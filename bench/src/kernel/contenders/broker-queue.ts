/* What lies in a queue, as the broker has it: the judge of what was published. */
import { EventEnvelope } from '@cloudphone/contracts/event'
import { Connection } from 'rabbitmq-client'
import { demandEqual, VoidRound } from '../contestant.ts'

const READ_AHEAD = 2_000
const WITHIN_MS = 60_000

/** Empties a queue; one that is not there is empty. */
export async function emptyQueue(url: string, queue: string): Promise<void> {
  await withConnection(url, async (connection) => {
    await connection.queuePurge({ queue })
  })
}

/** Takes all messages out. @throws VoidRound unless each of `events` is there once, those of each thing in order. */
export async function auditQueue(url: string, queue: string, events: number): Promise<void> {
  const found = await withConnection(url, async (connection) => {
    const { messageCount } = await connection.queueDeclare({ queue, passive: true })
    demandEqual('messages in the queue', messageCount, events)
    return await takeAll(connection, queue, events)
  })
  demandEqual('different events in the queue', new Set(found.map(({ id }) => id)).size, events)
  const versions = new Map<string, number>()
  for (const { subject, aggregateversion } of found) {
    if (aggregateversion !== (versions.get(subject) ?? 0) + 1)
      throw new VoidRound(`the round is void: ${subject}'s events are out of order at ${aggregateversion}`)
    versions.set(subject, aggregateversion)
  }
}

async function takeAll(connection: Connection, queue: string, count: number): Promise<EventEnvelope[]> {
  const found: EventEnvelope[] = []
  const all = Promise.withResolvers<void>()
  const consumer = connection.createConsumer(
    { queue, queueOptions: { passive: true }, qos: { prefetchCount: READ_AHEAD } },
    async ({ body }) => {
      found.push(EventEnvelope.parse(JSON.parse(Buffer.isBuffer(body) ? body.toString() : String(body))))
      if (found.length === count) all.resolve()
    },
  )
  consumer.on('error', all.reject)
  const timeout = setTimeout(
    () => all.reject(new Error(`${found.length} of ${count} messages came`)),
    WITHIN_MS,
  )
  try {
    if (count > 0) await all.promise
  } finally {
    clearTimeout(timeout)
    await consumer.close()
  }
  return found
}

async function withConnection<Result>(
  url: string,
  work: (connection: Connection) => Promise<Result>,
): Promise<Result> {
  const connection = new Connection(url)
  connection.on('error', () => undefined) // what is asked of it fails by itself
  try {
    return await work(connection)
  } finally {
    await connection.close()
  }
}
