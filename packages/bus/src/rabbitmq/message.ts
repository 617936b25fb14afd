import { createHash } from 'node:crypto'
import type { EventEnvelope } from '@cloudphone/contracts/event'
import type { AsyncMessage } from 'rabbitmq-client'
import type { DeadLetter } from '../bus.ts'
import { DELIVERY_LIMIT } from './topology.ts'

/** A message as it is published. */
export interface Outgoing {
  readonly exchange: string
  readonly routingKey: string
  /** Comes back when no queue takes it. */
  readonly mandatory: boolean
  readonly eventId: string
  readonly eventType: string
  readonly headers: Readonly<Record<string, string | number>>
  readonly body: Buffer
}

/** What befell a delivery before. Kept in headers, since RabbitMQ counts no attempts. */
export interface Failures {
  readonly failures: number
  readonly error: string
  readonly firstFailedAt: Date
}

const FAILURES = 'cloudphone-failures'
const ERROR = 'cloudphone-error'
const FIRST_FAILED_AT = 'cloudphone-first-failed-at'
const DIED_AT = 'cloudphone-died-at'

/** CloudEvents 1.0 in structured mode, as its AMQP binding names it. */
export const CONTENT_TYPE = 'application/cloudevents+json; charset=utf-8'

// All headers of a message must fit into one frame, which is 8 KiB with our client.
const LONGEST_ERROR_BYTES = 4_000

export function bodyOf(envelope: EventEnvelope): Buffer {
  return Buffer.from(JSON.stringify(envelope))
}

/** The body as it was published: bytes, whatever the message says of its type. */
export function bytesOf({ body }: AsyncMessage): Buffer {
  if (Buffer.isBuffer(body)) return body
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}

/** The JSON value of a body, or its text when it is none. */
export function contentOf(message: AsyncMessage): unknown {
  const text = bytesOf(message).toString()
  try {
    return JSON.parse(text)
  } catch {
    // Whoever gets it will refuse a text; the dead letter shows it as it is.
    return text
  }
}

export function failuresOf({ headers = {} }: AsyncMessage): number {
  const failures: unknown = headers[FAILURES]
  return typeof failures === 'number' && failures > 0 ? failures : 0
}

/** How often the broker had it back without an answer: its consumer died, closed or gave it back (quorum queues count). */
export function timesGivenBack({ headers = {} }: AsyncMessage): number {
  const count: unknown = headers['x-delivery-count']
  return typeof count === 'number' ? count : 0
}

export function firstFailedAtOf({ headers = {} }: AsyncMessage): Date | undefined {
  return dateOf(headers[FIRST_FAILED_AT])
}

export function failureHeaders({
  failures,
  error,
  firstFailedAt,
}: Failures): Record<string, string | number> {
  return {
    [FAILURES]: failures,
    [ERROR]: cut(error),
    [FIRST_FAILED_AT]: firstFailedAt.toISOString(),
  }
}

export function deathHeaders(failures: Failures, diedAt: Date): Record<string, string | number> {
  return { ...failureHeaders(failures), [DIED_AT]: diedAt.toISOString() }
}

/**
 * Reads a dead letter. Its id is a UUIDv7 of the moment it died, the same at every look; a second copy of an event that
 * died in the same queue has an id of its own.
 */
export function deadLetterOf(queue: string, message: AsyncMessage): DeadLetter {
  const envelope = contentOf(message)
  const headers = message.headers ?? {}
  const eventId = message.messageId ?? field(envelope, 'id') ?? ''
  const eventType = message.type ?? field(envelope, 'type') ?? ''
  const buried = dateOf(headers[DIED_AT])
  const diedAt = buried ?? brokerDeathOf(headers['x-death']) ?? new Date(0)
  const failures = failuresOf(message)
  return {
    id: idOf(diedAt, `${queue}\0${eventId}`),
    queue,
    eventId,
    eventType,
    envelope,
    error:
      buried === undefined
        ? `its consumer died or gave it back ${DELIVERY_LIMIT} times with it in hand`
        : String(headers[ERROR] ?? ''),
    attempts: buried === undefined ? failures + DELIVERY_LIMIT : failures,
    firstFailedAt: firstFailedAtOf(message) ?? diedAt,
    diedAt,
  }
}

/** When the broker itself gave a message up: the youngest entry of `x-death` comes first, in whole seconds. */
function brokerDeathOf(deaths: unknown): Date | undefined {
  const [youngest] = Array.isArray(deaths) ? deaths : []
  const seconds: unknown = youngest?.time
  return typeof seconds === 'number' ? new Date(seconds * 1_000) : undefined
}

function idOf(at: Date, seed: string): string {
  const time = at.getTime().toString(16).padStart(12, '0')
  const hash = createHash('sha256').update(seed).digest('hex')
  const variant = ((Number.parseInt(hash.slice(3, 4), 16) & 0x3) | 0x8).toString(16)
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hash.slice(0, 3)}-${variant}${hash.slice(4, 7)}-${hash.slice(7, 19)}`
}

function field(envelope: unknown, name: 'id' | 'type'): string | undefined {
  if (typeof envelope !== 'object' || envelope === null) return undefined
  const value: unknown = Reflect.get(envelope, name)
  return typeof value === 'string' ? value : undefined
}

function dateOf(value: unknown): Date | undefined {
  const date = new Date(typeof value === 'string' ? value : Number.NaN)
  return Number.isNaN(date.getTime()) ? undefined : date
}

/** Cut between characters, not within one. */
function cut(text: string): string {
  const bytes = Buffer.from(text)
  if (bytes.length <= LONGEST_ERROR_BYTES) return text
  return new TextDecoder().decode(bytes.subarray(0, LONGEST_ERROR_BYTES)).replace(/\uFFFD$/, '')
}
