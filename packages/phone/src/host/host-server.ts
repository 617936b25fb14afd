import { chmod, rm } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { type ZodType, z } from 'zod'
import { ensurePrivateDirectory } from './atomic-file.ts'
import {
  CrashPhone,
  CreatePhone,
  EventsQuery,
  FaultPlan,
  ListQuery,
  type PhoneEvent,
  PhoneParams,
  ReplaceKeys,
  StartQuery,
} from './host-api.ts'
import { HostError } from './host-error.ts'
import type { HostLog } from './phone.ts'
import type { PhoneHost } from './phone-host.ts'

const FAREWELL_MS = 1000
const BODY_BYTES = 1024 * 1024
/** sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing zero included. */
const SOCKET_PATH_BYTES = 103
/** What a client of this door calls it; anything else is a browser or a proxy that has lost its way. */
const HOST_NAMES = ['phone-host', 'localhost']

export interface HostServerOptions {
  readonly host: PhoneHost
  readonly log: HostLog
  /** `POST /v1/shutdown` was answered. */
  readonly shutdown: () => void
}

/** Bodies are checked by zod: Fastify's own compilers, 230 files of them, are not loaded. */
function noSchemas(): never {
  throw new Error('a route with a JSON schema: zod is what checks bodies')
}

/** The API of a phone host; the caller makes it listen. */
export function buildHostServer({ host, log, shutdown }: HostServerOptions): FastifyInstance {
  const app = Fastify({
    bodyLimit: BODY_BYTES,
    forceCloseConnections: true,
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
  })
  const followers = new Set<ServerResponse>()
  app.addHook('preClose', async () => await farewell(followers))
  app.addHook('onRequest', async (request) => {
    const name = request.headers.host?.replace(/:\d+$/, '') ?? ''
    if (!HOST_NAMES.includes(name)) {
      throw new HostError({
        code: 'wrong_host',
        status: 403,
        message: `no host ${name} here`,
        retryable: false,
      })
    }
  })
  app.setErrorHandler((error, request, reply) => answerError({ error, request, reply, log }))
  app.setNotFoundHandler((request) => {
    throw new HostError({
      code: 'no_such_route',
      status: 404,
      message: `no ${request.method} ${request.url}`,
      retryable: false,
    })
  })
  hostRoutes(app, { host, shutdown, followers })
  phoneRoutes(app, host)
  return app
}

interface HostRoutes {
  readonly host: PhoneHost
  readonly shutdown: () => void
  /** Event streams that are being written. */
  readonly followers: Set<ServerResponse>
}

function hostRoutes(app: FastifyInstance, { host, shutdown, followers }: HostRoutes): void {
  app.get('/v1/info', async () => host.info())
  app.get('/v1/health', async () => ({ status: 'ok' }))
  app.get('/v1/faults', async () => host.faults())
  app.put('/v1/faults', async (request) => await host.setFaults(parse(FaultPlan, request.body)))
  app.get('/v1/events', async (request, reply) => {
    await streamEvents(host, request, reply)
    followers.add(reply.raw)
    reply.raw.once('close', () => followers.delete(reply.raw))
  })
  app.post('/v1/shutdown', async (_request, reply) => {
    reply.raw.once('close', shutdown)
    return await reply.code(202).send({ status: 'stopping' })
  })
}

function phoneRoutes(app: FastifyInstance, host: PhoneHost): void {
  app.post('/v1/phones', async (request, reply) => {
    const { phone, created } = await host.create(parse(CreatePhone, request.body))
    return await reply.code(created ? 201 : 200).send(phone)
  })
  app.get('/v1/phones', async (request) => {
    const { label = [] } = parse(ListQuery, request.query)
    return host.list(label.map(splitLabel))
  })
  app.get('/v1/phones/:id', async (request) => phoneOf(host, request).view())
  app.post('/v1/phones/:id/start', async (request, reply) => {
    const { wait } = parse(StartQuery, request.query)
    const phone = phoneOf(host, request)
    await phone.start()
    if (wait === 'boot') await phone.booted(goneSignal(reply))
    return phone.view()
  })
  app.post('/v1/phones/:id/stop', async (request) => {
    const phone = phoneOf(host, request)
    await phone.stop('requested')
    return phone.view()
  })
  app.post('/v1/phones/:id/wipe', async (request) => await phoneOf(host, request).wipe())
  app.post('/v1/phones/:id/crash', async (request) => {
    const { reason } = parse(CrashPhone, request.body)
    const phone = phoneOf(host, request)
    await phone.crash(reason)
    return phone.view()
  })
  app.put('/v1/phones/:id/adb-keys', async (request) => {
    const { keys } = parse(ReplaceKeys, request.body)
    const phone = phoneOf(host, request)
    await phone.setKeys(keys)
    return phone.view()
  })
  app.get('/v1/phones/:id/faults', async (request) => phoneOf(host, request).faults.report)
  app.put('/v1/phones/:id/faults', async (request) => {
    return await phoneOf(host, request).faults.replace(parse(FaultPlan, request.body))
  })
  app.delete('/v1/phones/:id', async (request, reply) => {
    await host.destroy(parse(PhoneParams, request.params).id)
    return await reply.code(204).send()
  })
}

/**
 * Listens on a unix socket in a directory that only its owner can enter. A socket file that nobody answers on is what a
 * killed host left, and is replaced; a live one is refused with an Error in one line.
 */
export async function listenOnSocket(app: FastifyInstance, socketPath: string): Promise<void> {
  if (Buffer.byteLength(socketPath) > SOCKET_PATH_BYTES) {
    throw new Error(`socket path ${socketPath} is longer than ${SOCKET_PATH_BYTES} bytes`)
  }
  await ensurePrivateDirectory(dirname(socketPath))
  if (await answers(socketPath)) throw new Error(`another process listens on ${socketPath}`)
  await rm(socketPath, { force: true })
  await app.listen({ path: socketPath })
  await chmod(socketPath, 0o600)
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(socketPath)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

function phoneOf(host: PhoneHost, request: FastifyRequest): ReturnType<PhoneHost['get']> {
  return host.get(parse(PhoneParams, request.params).id)
}

function splitLabel(label: string): [string, string] {
  const at = label.indexOf('=')
  return [label.slice(0, at), label.slice(at + 1)]
}

/** Events as newline-delimited JSON. The stream pulls from the log, so a reader that stands still costs nothing. */
async function streamEvents(host: PhoneHost, request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const { since = host.events.lastSeq, follow } = parse(EventsQuery, request.query)
  host.events.check(since)
  const gone = goneSignal(reply)
  reply.hijack()
  reply.raw.writeHead(200, { 'content-type': 'application/x-ndjson' })
  reply.raw.flushHeaders()
  const lines = async function* (): AsyncGenerator<string> {
    const batches = follow === 'true' ? host.events.follow(since, gone) : allNow(host, since)
    for await (const batch of batches) yield batch.map((event) => `${JSON.stringify(event)}\n`).join('')
  }
  const stream = Readable.from(lines())
  // A reader that has gone ends the stream in the middle; there is nobody left to tell.
  stream.on('error', () => reply.raw.destroy())
  stream.pipe(reply.raw)
}

/** Lets the event streams, which end with the log, bring out their last lines; a reader that stands still is left behind. */
async function farewell(followers: ReadonlySet<ServerResponse>): Promise<void> {
  const timeout = AbortSignal.timeout(FAREWELL_MS)
  const done = [...followers].map(async (response) => {
    // Rejects when the reader breaks off or is too slow, which is as good an end as any.
    await finished(response, { signal: timeout }).catch((error: unknown) => error)
  })
  await Promise.all(done)
}

async function* allNow(host: PhoneHost, since: number): AsyncGenerator<readonly PhoneEvent[]> {
  let last = since
  for (;;) {
    const batch = host.events.after(last) ?? []
    const newest = batch.at(-1)
    if (newest === undefined) return
    last = newest.seq
    yield batch
  }
}

/** Fires when the client has hung up, or has its answer. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController()
  reply.raw.once('close', () => gone.abort(new Error('client has gone')))
  return gone.signal
}

function parse<T>(schema: ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new HostError({
    code: 'invalid_request',
    status: 400,
    message: z.prettifyError(parsed.error),
    retryable: false,
  })
}

async function answerError(context: {
  error: unknown
  request: FastifyRequest
  reply: FastifyReply
  log: HostLog
}): Promise<void> {
  const { error, request, reply, log } = context
  const known = error instanceof HostError ? error : foreignError(error)
  if (known.code === 'internal') log('request.failed', { url: request.url, error: stackOf(error) })
  if (known.retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(known.retryAfterMs / 1000))
  const { status, code, message, retryable } = known
  const body = { type: 'about:blank', status, code, message, retryable }
  await reply.code(status).type('application/problem+json').send(JSON.stringify(body))
}

/** Errors of Fastify itself (a body that is no JSON, or too large) keep their status; all else is our fault. */
function foreignError(error: unknown): HostError {
  const status = error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : 500
  if (status >= 400 && status < 500 && error instanceof Error) {
    return new HostError({ code: 'invalid_request', status, message: error.message, retryable: false })
  }
  return new HostError({
    code: 'internal',
    status: 500,
    message: error instanceof Error ? error.message : String(error),
    retryable: true,
  })
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
