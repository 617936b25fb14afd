import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { ResultOf, Route } from '@cloudphone/contracts/route'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'
import type { Tracer } from '@cloudphone/observe/trace'
import multipart from '@fastify/multipart'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify'
import type { AuditCheck } from './audit-check.ts'
import { deadlineHeader, readDeadline, underDeadline } from './deadline.ts'
import { addProblems, bodyLimitBytes, sendProblem } from './http-problems.ts'
import { type Gate, headerOf, prepare, type Request } from './http-request.ts'
import type { Idempotency } from './idempotency.ts'
import { common } from './problem.ts'
import { inScope } from './request-scope.ts'
import { inRequestTrace, traceRequests } from './request-trace.ts'

/** Bytes as an answer, with what the client should know about them. */
export interface ByteAnswer {
  readonly body: Readable | Buffer
  readonly sizeBytes?: number
  /** Where it is not that of the contract. */
  readonly mediaType?: string
  readonly headers?: Readonly<Record<string, string>>
}

type Result<R extends Route> = R['answer'] extends { kind: 'bytes' } ? ByteAnswer : ResultOf<R>
export type Handler<R extends Route> = (request: Request<R>) => Promise<Result<R>>

export interface Binding {
  readonly route: Route
  readonly handle: (request: Request<Route>) => Promise<unknown>
}

/** Binds a handler to a route. The handler holds no logic: it hands over to the domain. */
export function bind<R extends Route>(route: R, handle: Handler<R>): Binding {
  return { route, handle: handle as Binding['handle'] }
}

/** Bounds of connections and heads, for a server whose callers are anybody. */
export interface HttpLimits {
  /** Of the request line and the headers together, in bytes. */
  readonly maxHeaderSize?: number
  /** How often connections with a late head are looked for, in ms. */
  readonly connectionsCheckingInterval?: number
  /** From the beginning of a request to the end of its head, in ms. */
  readonly headersTimeout?: number
  readonly maxRequestsPerSocket?: number
  /** Whether a request that asks to speak another protocol is given to who listens for upgrades; else it is an ordinary one. */
  readonly shouldUpgradeCallback?: (request: IncomingMessage) => boolean
  /** Answers what is not a request. */
  readonly refuse?: (error: NodeJS.ErrnoException, socket: Socket) => void
  /** Whose `X-Forwarded-For` is believed; nobody's when absent. */
  readonly trustProxy?: (address: string) => boolean
}

export interface HttpServerOptions extends Omit<Gate, 'draining'> {
  log: Logger
  metrics: Metrics
  /** Shown at /metrics besides the service's own. */
  sharedMetrics: Metrics | undefined
  idempotency: Idempotency | undefined
  /** Undefined: nothing is on record here, as in the gateway, whose changes are those of the services behind it. */
  auditCheck?: AuditCheck | undefined
  /** True when all that the service stands on answers. */
  ready: () => Promise<boolean>
  uploadLimitBytes: number
  /** Undefined: no request becomes a span. */
  tracer?: Tracer | undefined
  limits?: HttpLimits | undefined
}

/** Routes are checked by their contracts: Fastify's own compilers, 230 files of them, are not loaded. */
function noSchemas(): never {
  throw new Error('a route with a JSON schema: its contract is what checks it')
}

interface RouteOptions extends HttpServerOptions, Gate {}

/** Opens the HTTP side of a service: routes by contract, problems, health, metrics, request ids and traces. */
export async function openHttpServer(
  options: HttpServerOptions,
  bindings: readonly Binding[],
): Promise<FastifyInstance> {
  const { maxHeaderSize, connectionsCheckingInterval, headersTimeout, ...limits } = options.limits ?? {}
  const { shouldUpgradeCallback, refuse, trustProxy, ...socket } = limits
  const app = Fastify({
    http: {
      ...(shouldUpgradeCallback !== undefined && { shouldUpgradeCallback }),
      ...(maxHeaderSize !== undefined && { maxHeaderSize }),
      ...(connectionsCheckingInterval !== undefined && { connectionsCheckingInterval }),
      ...(headersTimeout !== undefined && { headersTimeout }),
    },
    ...(refuse !== undefined && { clientErrorHandler: refuse }),
    ...(trustProxy !== undefined && { trustProxy }),
    ...socket,
    loggerInstance: options.log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    // Nobody logs by the request: a logger for each took 5 us.
    childLoggerFactory: (logger) => logger,
    bodyLimit: bodyLimitBytes,
    requestTimeout: 0,
    connectionTimeout: 75_000,
    keepAliveTimeout: 65_000,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 200 },
    schemaController: { compilersFactory: { buildValidator: noSchemas, buildSerializer: noSchemas } },
    // What is refused before a route is found, such as a URL that cannot be decoded.
    frameworkErrors: (error, request, reply) => void sendProblem(error, request, reply, options.log),
    genReqId: (raw) => {
      const given = raw.headers['x-request-id']
      return typeof given === 'string' && /^[\w.-]{8,64}$/.test(given) ? given : randomUUID()
    },
  })
  await app.register(multipart, {
    limits: { files: 1, fields: 20, fieldSize: 65_536, fileSize: options.uploadLimitBytes },
  })
  refuseOtherMediaTypes(app)
  traceRequests(app, options.tracer)
  addProblems(app, options.log)
  addHealth(app, options)
  const duration = options.metrics.histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from the arrival of a request to the end of its answer.',
    labels: ['route', 'status'],
  })
  app.addHook('onResponse', async (request, reply) => {
    duration.observe(
      { route: request.routeOptions.url ?? 'none', status: String(reply.statusCode) },
      reply.elapsedTime / 1000,
    )
    // The rest of an upload that was refused early is read and forgotten: its connection would hang, and our close with it.
    if (!request.raw.complete) request.raw.unpipe().resume()
  })
  // A request that waits must not hold up the drain: it is answered with how things stand.
  const draining = new AbortController()
  app.addHook('preClose', async () => draining.abort(new Error('the service is stopping')))
  closeWhatGetsIdle(app)
  // Node would refuse an unknown Expect by an empty 417; RFC 9110, 10.1.1 lets us pass over it, as it lets us refuse.
  app.server.on('checkExpectation', (request, response) => app.routing(request, response))
  for (const binding of bindings) addRoute(app, binding, { ...options, draining: draining.signal })
  return app
}

const idleLookMs = 50

/**
 * Fastify closes the connections that are idle when its close begins. One that is still answering then would be kept
 * alive after its answer, and would hold up the close for the 65 s of `keepAliveTimeout`.
 */
function closeWhatGetsIdle(app: FastifyInstance): void {
  app.addHook('preClose', async () => {
    if (!app.server.listening) return
    const looking = setInterval(() => app.server.closeIdleConnections(), idleLookMs)
    app.server.once('close', () => clearInterval(looking))
  })
}

function refuseOtherMediaTypes(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser('error', 'error')
  app.removeContentTypeParser('text/plain')
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') done(null, undefined)
    else void parseJson(request, body as string, done)
  })
}

function addHealth(
  app: FastifyInstance,
  { metrics, sharedMetrics, ready, service }: HttpServerOptions,
): void {
  app.get('/health/live', async () => ({ status: 'live', service }))
  app.get('/health/ready', async (_request, reply) => {
    const isReady = await ready()
    return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'ready' : 'not ready', service })
  })
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.contentType).send(`${await metrics.render()}${(await sharedMetrics?.render()) ?? ''}`),
  )
}

function addRoute(app: FastifyInstance, binding: Binding, options: RouteOptions): void {
  const { route } = binding
  app.route({
    method: route.method,
    url: route.path,
    handler: (request, reply) =>
      inRequestTrace(request, async () => {
        const { prepared, cause } = await prepare(route, { request, reply }, options)
        const key = headerOf(request, 'idempotency-key')
        reply.header('x-request-id', request.id)
        const handle = (requestKey: string): Promise<unknown> =>
          inScope(cause, async (scope) => {
            const result = await binding.handle(prepared(requestKey))
            options.auditCheck?.(route, scope)
            return result
          })
        if (
          route.method !== 'POST' ||
          key === undefined ||
          options.idempotency === undefined ||
          route.upload !== undefined ||
          // Bytes are not kept: who asks again has it done again.
          route.answer.kind === 'bytes'
        ) {
          return answer(reply, route, await inTime(request, () => handle(randomUUID())))
        }
        const first = prepared(key)
        const caller = route.access.kind === 'user' ? first.caller.userId : (first.service ?? 'public')
        const { idempotency } = options
        const kept = await inTime(request, () =>
          idempotency.once(
            { caller, route: route.name, key, body: JSON.stringify([request.params, request.body ?? null]) },
            handle,
          ),
        )
        return answer(reply, route, kept)
      }),
  })
}

/**
 * Runs a handler under the deadline that came with the request. With the time up the caller hears so; the handler goes on to
 * its end, as it would without anybody who listens.
 * @throws ProblemError `deadline_exceeded`.
 */
async function inTime<T>(request: FastifyRequest, work: () => Promise<T>): Promise<T> {
  const leftMs = readDeadline(request.headers[deadlineHeader])
  if (leftMs === undefined) return await work()
  const late = Promise.withResolvers<never>()
  const timeout = setTimeout(() => late.reject(common.deadline_exceeded({ waitedMs: leftMs })), leftMs)
  try {
    // The race hears of a later failure too, so that none is left unhandled.
    return await Promise.race([underDeadline(performance.now() + leftMs, work), late.promise])
  } finally {
    clearTimeout(timeout)
  }
}

function answer(reply: FastifyReply, route: Route, result: unknown): FastifyReply {
  switch (route.answer.kind) {
    case 'none':
      return reply.code(204).send()
    case 'item':
      return reply.code(route.answer.status).send({ success: true, data: result })
    case 'list': {
      const page = result as { items: readonly unknown[]; nextCursor: string | null }
      return reply.send({ success: true, data: page.items, page: { nextCursor: page.nextCursor } })
    }
    case 'bytes': {
      const { body, sizeBytes, headers, mediaType = route.answer.mediaType } = result as ByteAnswer
      if (sizeBytes !== undefined) reply.header('content-length', String(sizeBytes))
      // Fastify has set the headers when it begins to pipe; Node would keep them until the first bytes come.
      if (route.answer.isLive) reply.raw.once('pipe', () => reply.raw.flushHeaders())
      return reply
        .headers(headers ?? {})
        .type(mediaType)
        .send(body)
    }
  }
}
