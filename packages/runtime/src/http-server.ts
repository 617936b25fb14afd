import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isIP, type Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { type Caller, may } from '@cloudphone/contracts/access'
import type { BodyOf, ParamsOf, QueryOf, ResultOf, Route } from '@cloudphone/contracts/route'
import type { ServiceName } from '@cloudphone/contracts/services'
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
import type { z } from 'zod'
import type { AuditCheck } from './audit-check.ts'
import { deadlineHeader, readDeadline, underDeadline } from './deadline.ts'
import type { Idempotency } from './idempotency.ts'
import { common, type FieldError, ProblemError, renderProblem } from './problem.ts'
import { type Cause, inScope, nobody } from './request-scope.ts'
import { inRequestTrace, traceRequests } from './request-trace.ts'
import { addressClaim, addressProofHeader, type ServiceTokens, type TokenVerifier } from './tokens.ts'

/** A file on its way in: read it once, to its end. */
export interface Upload {
  readonly filename: string
  readonly stream: Readable
  /** True when the stream was cut because it passed the limit; only known at its end. */
  readonly truncated: () => boolean
}

/** What a handler gets: everything parsed and checked by the route's contract. */
export interface Request<R extends Route> {
  readonly params: ParamsOf<R>
  readonly query: QueryOf<R>
  readonly body: BodyOf<R>
  /** The verified caller of a `user` route. Asking for it elsewhere is a programming error and throws. */
  readonly caller: Caller
  /** The calling service of a `service` route. */
  readonly service: ServiceName | undefined
  readonly upload: Upload | undefined
  /**
   * Where the request comes from: as the gateway says, if it proves that it is the gateway, else the other end of the
   * connection. Nobody can take another's address by writing a header.
   */
  clientAddress(): string
  readonly requestId: string
  /**
   * Names this request for ever: the same for each retry under one Idempotency-Key, else new. Use it as the business key
   * of what the request starts, so that a retry after a crash finds the first one.
   */
  readonly requestKey: string
  /** Fires when the caller has gone, its deadline has come or the service stops: a handler that waits answers with what it has. */
  readonly signal: AbortSignal
}

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

export interface HttpServerOptions {
  service: ServiceName
  log: Logger
  metrics: Metrics
  /** Shown at /metrics besides the service's own. */
  sharedMetrics: Metrics | undefined
  tokens: TokenVerifier
  serviceTokens: ServiceTokens
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

interface RouteOptions extends HttpServerOptions {
  readonly draining: AbortSignal
}

const bodyLimitBytes = 1024 * 1024

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
    // What is refused before a route is found, such as a URL that cannot be decoded.
    frameworkErrors: (error, request, reply) =>
      void sendProblem(translate(error), request, reply, options.log),
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

function addProblems(app: FastifyInstance, log: Logger): void {
  app.setErrorHandler(async (error, request, reply) => sendProblem(translate(error), request, reply, log))
  app.setNotFoundHandler(async (request, reply) => {
    const path = request.url.split('?')[0]
    return sendProblem(common.not_found({ method: request.method, path }), request, reply, log)
  })
}

/** Fastify's own complaints in our words; anything else is kept for the log and hidden from the caller. */
function translate(error: unknown): unknown {
  const code = typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') return common.body_too_large({ limitBytes: bodyLimitBytes })
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE')
    return common.unsupported_media_type({ wanted: 'application/json' })
  if (isOfForm(error)) return common.form_malformed()
  const status =
    typeof error === 'object' && error !== null && 'statusCode' in error ? error.statusCode : undefined
  if (
    error instanceof Error &&
    !(error instanceof ProblemError) &&
    typeof status === 'number' &&
    status < 500
  ) {
    return new ProblemError({ status, code: 'invalid_request', detail: error.message })
  }
  return error
}

/**
 * True for what @fastify/busboy says of a form that ends early or has no boundary, to us or through the stream of the file.
 * Its errors have no code, only these words.
 */
function isOfForm(error: unknown): boolean {
  return (
    error instanceof Error && /unexpected end of multipart data$|^Multipart: Boundary/i.test(error.message)
  )
}

function sendProblem(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  log: Logger,
): FastifyReply {
  const { status, document } = renderProblem(error, request.id)
  if (status >= 500)
    log.error({ event: 'http.failed', requestId: request.id, route: request.routeOptions.url, err: error })
  if (error instanceof ProblemError && error.retryAfterSeconds !== undefined) {
    reply.header('retry-after', String(error.retryAfterSeconds))
  }
  if (status === 401) reply.header('www-authenticate', 'Bearer')
  return reply
    .code(status)
    .header('x-request-id', request.id)
    .type('application/problem+json')
    .send(JSON.stringify(document))
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
          route.upload !== undefined
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

async function prepare(
  route: Route,
  { request, reply }: { request: FastifyRequest; reply: FastifyReply },
  options: RouteOptions,
): Promise<{ prepared: (requestKey: string) => Request<Route>; cause: Cause }> {
  const identity = await identify(route, request, options)
  const errors: FieldError[] = []
  const params = parse(route.params, request.params ?? {}, 'params', errors)
  const query = parse(route.query, request.query ?? {}, 'query', errors)
  const body = route.upload === undefined ? parse(route.body, request.body ?? {}, 'body', errors) : undefined
  if (errors.length > 0) throw invalid(errors)
  const gone = new AbortController()
  // The answer's stream tells it: the request's own is closed as soon as its body has been read.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new Error('the caller has gone'))
  })
  const upload = route.upload === undefined ? undefined : await uploadOf(request, route)
  const leftMs = readDeadline(request.headers[deadlineHeader])
  const ends = [gone.signal, options.draining]
  if (leftMs !== undefined) ends.push(AbortSignal.timeout(leftMs))
  const prepared = (requestKey: string): Request<Route> => ({
    params,
    query,
    body,
    get caller(): Caller {
      if (identity.caller === undefined) throw new Error(`route ${route.name} has no caller`)
      return identity.caller
    },
    service: identity.service,
    upload,
    clientAddress: () => addressOf(request, options),
    requestId: request.id,
    requestKey,
    signal: AbortSignal.any(ends),
  })
  return { prepared, cause: causeOf(request, identity) }
}

/** Who does what this request changes. */
function causeOf(
  request: FastifyRequest,
  { caller, service }: { caller?: Caller; service?: ServiceName },
): Cause {
  // The gateway, which is the only way in, sets it anew. A service that calls another has nothing to say of an address.
  const forwarded = headerOf(request, 'x-forwarded-for')
  const address = forwarded !== undefined && isIP(forwarded) !== 0 ? forwarded : request.ip
  return {
    actor: caller?.userId ?? (service === undefined ? nobody : `system:${service}`),
    requestId: request.id,
    sessionId: caller?.sessionId ?? null,
    address: service === undefined ? address : null,
  }
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

function invalid(errors: FieldError[]): ProblemError {
  const first = errors[0]
  const detail = first === undefined ? '' : ` ${first.path}: ${first.message}`
  return new ProblemError({
    status: 400,
    code: 'invalid_request',
    detail: `The request does not fit the contract.${detail}`,
    errors,
  })
}

function parse(schema: z.ZodType, value: unknown, place: string, errors: FieldError[]): unknown {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  for (const issue of result.error.issues.slice(0, 20)) {
    errors.push({ path: [place, ...issue.path].map(String).join('.'), message: issue.message })
  }
  return undefined
}

async function identify(
  { access }: Route,
  request: FastifyRequest,
  options: HttpServerOptions,
): Promise<{ caller?: Caller; service?: ServiceName }> {
  if (access.kind === 'public') return {}
  const token = /^Bearer (\S{1,8192})$/.exec(headerOf(request, 'authorization') ?? '')?.[1]
  if (token === undefined) throw common.unauthenticated()
  if (access.kind === 'service')
    return { service: await options.serviceTokens.verify(token, options.service) }
  const caller = await options.tokens.verify(token)
  if (access.permission !== 'self' && !may(caller, access.permission)) {
    throw common.forbidden({ permission: access.permission })
  }
  return { caller }
}

function addressOf(request: FastifyRequest, { serviceTokens }: HttpServerOptions): string {
  const told = headerOf(request, 'x-forwarded-for')
  const proof = headerOf(request, addressProofHeader)
  if (told === undefined || proof === undefined) return request.ip
  return serviceTokens.isVouched(addressClaim(request.id, told), proof) ? told : request.ip
}

async function uploadOf(request: FastifyRequest, route: Route): Promise<Upload> {
  if (!request.isMultipart()) throw common.unsupported_media_type({ wanted: 'multipart/form-data' })
  const file = await request.file()
  if (file === undefined || file.fieldname !== route.upload) {
    throw new ProblemError({
      status: 400,
      code: 'file_missing',
      detail: `The form has no file in its field '${route.upload}'.`,
    })
  }
  return { filename: file.filename, stream: file.file, truncated: () => file.file.truncated }
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
      return reply
        .headers(headers ?? {})
        .type(mediaType)
        .send(body)
    }
  }
}

function headerOf(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name]
  return Array.isArray(value) ? value[0] : value
}
