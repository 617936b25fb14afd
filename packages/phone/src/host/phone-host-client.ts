import { Pool } from 'undici'
import type { ZodType } from 'zod'
import {
  type CreatePhoneInput,
  type FaultPlan,
  FaultReport,
  HostInfo,
  PhoneEvent,
  PhoneList,
  PhoneView,
  Problem,
  WipeReport,
} from './host-api.ts'

/** Long enough for a boot of 60 s with a wait; a caller with less patience passes a signal. */
const ANSWER_TIMEOUT_MS = 120_000
const MAX_EVENT_LINE_CHARS = 1024 * 1024

/**
 * What the phone host refused, or that it could not be reached (`host_unreachable`, status 503) or did not answer in
 * time (`host_timeout`, status 504); after the last two nobody knows whether the operation was carried out.
 */
export class PhoneHostError extends Error {
  override readonly name = 'PhoneHostError'
  readonly code: string
  readonly status: number
  readonly retryable: boolean
  /** From Retry-After of a 429. */
  readonly retryAfterMs: number | undefined

  constructor(
    options: {
      code: string
      status: number
      message: string
      retryable: boolean
      retryAfterMs?: number | undefined
    },
    cause?: unknown,
  ) {
    super(options.message, { cause })
    this.code = options.code
    this.status = options.status
    this.retryable = options.retryable
    this.retryAfterMs = options.retryAfterMs
  }
}

export interface CallOptions {
  /** Gives up waiting; rejects with the signal's reason. The host may still carry the operation out. */
  readonly signal?: AbortSignal
}

/** A client of the phone host. Every method rejects with `PhoneHostError`. */
export interface PhoneHostClient {
  info(options?: CallOptions): Promise<HostInfo>
  /** Resolves when the host answers. */
  health(options?: CallOptions): Promise<void>
  /** Idempotent by id: gives the phone that is there. */
  create(phone: CreatePhoneInput, options?: CallOptions): Promise<PhoneView>
  /** Phones that have all these labels; `seq` is where to follow the events from. */
  list(options?: CallOptions & { labels?: Readonly<Record<string, string>> }): Promise<PhoneList>
  get(id: string, options?: CallOptions): Promise<PhoneView>
  /** Resolves when the adb port listens, or, with `wait: 'boot'`, when the phone has booted. */
  start(id: string, options?: CallOptions & { wait?: 'listen' | 'boot' }): Promise<PhoneView>
  stop(id: string, options?: CallOptions): Promise<PhoneView>
  /** Switches the phone off and erases all that its users left; its keys, its faults and what it is stay. Idempotent. */
  wipe(id: string, options?: CallOptions): Promise<WipeReport>
  crash(id: string, reason: string, options?: CallOptions): Promise<PhoneView>
  /** Makes sure that there is no such phone. */
  destroy(id: string, options?: CallOptions): Promise<void>
  /** Replaces the accepted adb keys; connections of other keys are cut when this resolves. */
  setAdbKeys(id: string, keys: readonly string[], options?: CallOptions): Promise<PhoneView>
  faults(options?: CallOptions): Promise<FaultReport>
  setFaults(plan: FaultPlan, options?: CallOptions): Promise<FaultReport>
  phoneFaults(id: string, options?: CallOptions): Promise<FaultReport>
  setPhoneFaults(id: string, plan: FaultPlan, options?: CallOptions): Promise<FaultReport>
  /**
   * Events after `since` (without it: from now on) until the host closes. Rejects with code `events_gone` (410) when
   * they are no longer kept, and with `host_unreachable` when the connection breaks: list again, then follow from `seq`.
   */
  events(
    options?: CallOptions & { since?: number; follow?: boolean },
  ): AsyncGenerator<PhoneEvent, void, undefined>
  /** Asks the host to stop its phones and exit. */
  shutdown(options?: CallOptions): Promise<void>
  close(): Promise<void>
}

/** Opens a client; connects when first used. */
export function openPhoneHost(options: { socketPath: string; answerTimeoutMs?: number }): PhoneHostClient {
  const pool = new Pool('http://phone-host', {
    connect: { socketPath: options.socketPath },
    headersTimeout: options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS,
    bodyTimeout: 0,
  })
  const call = new Caller(pool)
  const phone = (id: string, verb = ''): string => `/v1/phones/${encodeURIComponent(id)}${verb}`
  return {
    info: (o) => call.json('GET', '/v1/info', HostInfo, o),
    health: (o) => call.done('GET', '/v1/health', o),
    create: (body, o) => call.json('POST', '/v1/phones', PhoneView, { ...o, body }),
    list: (o) => call.json('GET', `/v1/phones${labelQuery(o?.labels ?? {})}`, PhoneList, o),
    get: (id, o) => call.json('GET', phone(id), PhoneView, o),
    start: (id, o) => call.json('POST', phone(id, `/start?wait=${o?.wait ?? 'listen'}`), PhoneView, o),
    stop: (id, o) => call.json('POST', phone(id, '/stop'), PhoneView, o),
    wipe: (id, o) => call.json('POST', phone(id, '/wipe'), WipeReport, o),
    crash: (id, reason, o) => call.json('POST', phone(id, '/crash'), PhoneView, { ...o, body: { reason } }),
    destroy: (id, o) => call.done('DELETE', phone(id), o),
    setAdbKeys: (id, keys, o) =>
      call.json('PUT', phone(id, '/adb-keys'), PhoneView, { ...o, body: { keys } }),
    faults: (o) => call.json('GET', '/v1/faults', FaultReport, o),
    setFaults: (body, o) => call.json('PUT', '/v1/faults', FaultReport, { ...o, body }),
    phoneFaults: (id, o) => call.json('GET', phone(id, '/faults'), FaultReport, o),
    setPhoneFaults: (id, body, o) => call.json('PUT', phone(id, '/faults'), FaultReport, { ...o, body }),
    events: (o) => call.events(o ?? {}),
    shutdown: (o) => call.done('POST', '/v1/shutdown', o),
    close: () => pool.destroy(),
  }
}

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'
interface Sent extends CallOptions {
  readonly body?: unknown
}

class Caller {
  readonly #pool: Pool

  constructor(pool: Pool) {
    this.#pool = pool
  }

  async json<T>(method: Method, path: string, schema: ZodType<T>, sent: Sent = {}): Promise<T> {
    const text = await this.#send(method, path, sent, async (body) => await body.text())
    const parsed = schema.safeParse(JSON.parse(text))
    if (parsed.success) return parsed.data
    throw new PhoneHostError({
      code: 'unreadable_answer',
      status: 502,
      message: `${method} ${path}: ${parsed.error.message}`,
      retryable: false,
    })
  }

  async done(method: Method, path: string, sent: Sent = {}): Promise<void> {
    await this.#send(method, path, sent, async (body) => await body.dump())
  }

  async *events(options: CallOptions & { since?: number; follow?: boolean }): AsyncGenerator<PhoneEvent> {
    const query = new URLSearchParams({ follow: String(options.follow ?? true) })
    if (options.since !== undefined) query.set('since', String(options.since))
    const body = await this.#send('GET', `/v1/events?${query}`, options, async (stream) => stream)
    let rest = ''
    try {
      for await (const chunk of body.setEncoding('utf8') as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n')
        rest = lines.pop() ?? ''
        if (rest.length > MAX_EVENT_LINE_CHARS) throw new Error('event line is too long')
        for (const line of lines) yield PhoneEvent.parse(JSON.parse(line))
      }
    } catch (error) {
      throw asHostError(error, options.signal)
    } finally {
      body.destroy()
    }
  }

  async #send<T>(
    method: Method,
    path: string,
    sent: Sent,
    read: (body: Awaited<ReturnType<Pool['request']>>['body']) => Promise<T>,
  ): Promise<T> {
    try {
      const { statusCode, headers, body } = await this.#pool.request({
        method,
        path,
        ...(sent.signal === undefined ? {} : { signal: sent.signal }),
        ...(sent.body === undefined
          ? {}
          : { body: JSON.stringify(sent.body), headers: { 'content-type': 'application/json' } }),
      })
      if (statusCode < 400) return await read(body)
      throw refusal(statusCode, await body.text(), Number(headers['retry-after']))
    } catch (error) {
      throw asHostError(error, sent.signal)
    }
  }
}

function refusal(status: number, text: string, retryAfterSeconds: number): PhoneHostError {
  const retryAfterMs = Number.isFinite(retryAfterSeconds) ? retryAfterSeconds * 1000 : undefined
  const problem = Problem.safeParse(JSON.parse(text))
  if (problem.success) return new PhoneHostError({ ...problem.data, retryAfterMs })
  return new PhoneHostError({ code: 'unreadable_answer', status, message: text, retryable: status >= 500 })
}

/** The signal's own reason when the caller gave up, else a `PhoneHostError`. */
function asHostError(error: unknown, signal: AbortSignal | undefined): unknown {
  if (error instanceof PhoneHostError) return error
  if (signal?.aborted === true) return signal.reason
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const message = error instanceof Error ? error.message : String(error)
  const late = code === 'UND_ERR_HEADERS_TIMEOUT'
  return new PhoneHostError(
    {
      code: late ? 'host_timeout' : 'host_unreachable',
      status: late ? 504 : 503,
      message: `phone host: ${message}`,
      retryable: true,
    },
    error,
  )
}

function labelQuery(labels: Readonly<Record<string, string>>): string {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(labels)) query.append('label', `${key}=${value}`)
  return query.size === 0 ? '' : `?${query}`
}
