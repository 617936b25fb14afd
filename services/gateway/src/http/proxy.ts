import type { IncomingHttpHeaders } from 'node:http'
import { RetrySaga, SkipSagaStep, TurnSagaBack } from '@cloudphone/contracts/api/operator-api'
import { GetSaga } from '@cloudphone/contracts/api/platform-api'
import { mustBeAudited, type Route } from '@cloudphone/contracts/route'
import { publicRoutes } from '@cloudphone/contracts/routes'
import { type ServiceName, serviceOfSaga } from '@cloudphone/contracts/services'
import { deadlineHeader, readDeadline } from '@cloudphone/runtime/deadline'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { traceparentOf } from '@cloudphone/runtime/request-trace'
import { addressClaim, type ServiceTokens } from '@cloudphone/runtime/tokens'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import {
  copyEndToEnd,
  type Headers,
  type OwnHeaders,
  requestHeaders,
  upstreamPath,
} from '../domain/forwarding.ts'
import { classOf, deadlineOf, type RouteClass } from '../domain/route-class.ts'
import { problems } from '../errors.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import type { Receiver } from './attempt.ts'
import type { BodyIntake, PassingBody } from './request-body.ts'
import type { Passage, Upstream } from './upstream.ts'

/** Served by the service that runs the saga: the id's prefix tells which. */
const sagaRoutes = [GetSaga, RetrySaga, SkipSagaStep, TurnSagaBack]

interface ProxyOptions {
  readonly upstream: Upstream
  readonly bodies: BodyIntake
  readonly telemetry: GatewayTelemetry
  readonly scheme: OwnHeaders['scheme']
  /** What every answer tells browsers, unless the service says otherwise. */
  readonly browserHeaders: Readonly<Record<string, string>>
  /** Makes services believe what this door says of an address. */
  readonly serviceTokens: Pick<ServiceTokens, 'vouch'>
}

interface Target {
  readonly service: ServiceName
  readonly template: string
  readonly class: RouteClass
  /** Where the service counts by address, or puts it on record: there it is told so that it can be believed. */
  readonly needsAddress: boolean
}

/**
 * Forwards every public route to the service that owns it. Bodies pass as they come, in both directions, parsed by
 * nobody here: a 2 GiB upload takes no more memory than a short one.
 */
export async function proxyRoutes(app: FastifyInstance, options: ProxyOptions): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null, undefined))
    const add = (
      { method, path, upload, answer, access }: Route,
      serviceOf: (request: FastifyRequest) => ServiceName,
    ): void => {
      const target = {
        ...{ template: path, needsAddress: access.kind === 'public' || mustBeAudited({ method, access }) },
        class: classOf({ answer, ...(upload !== undefined && { upload }) }),
      }
      scope.route({
        method,
        url: path,
        handler: (request, reply) =>
          forward(request, reply, options, { ...target, service: serviceOf(request) }),
      })
    }
    for (const route of publicRoutes) {
      if (route.service !== 'gateway') add(route, () => route.service)
    }
    for (const route of sagaRoutes) {
      add(route, ({ params }) => {
        const { sagaId } = params as { sagaId: string }
        const service = serviceOfSaga(sagaId)
        if (service === undefined) throw problems.saga_not_found({ sagaId })
        return service
      })
    }
  })
}

/** Answers by itself, later: so it gives Fastify nothing. */
function forward(request: FastifyRequest, reply: FastifyReply, options: ProxyOptions, target: Target): void {
  const { template } = target
  const path = upstreamPath(template, request.params as Record<string, string>, request.raw.url ?? '')
  if (path === undefined) throw common.not_found({ method: request.method, path: template })
  const answer = new Answer(request, reply, options, target)
  const body = options.bodies.take(request.raw, target.class.limitBytes)
  if (body instanceof Promise) {
    body.then(
      (whole) => answer.ask(path, whole),
      (error: unknown) => answer.fail(error instanceof Error ? error : new Error(String(error))),
    )
  } else answer.ask(path, body)
}

const shortBytes = 8 * 1024

/** What a service answers, on its way to the caller. */
class Answer implements Receiver {
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #options: ProxyOptions
  readonly #target: Target
  #passage: Passage | undefined
  #isGone = false
  /** Of a body whose end is known from its beginning. */
  #missingBytes = -1
  #isFresh = true

  constructor(request: FastifyRequest, reply: FastifyReply, options: ProxyOptions, target: Target) {
    this.#request = request
    this.#reply = reply
    this.#options = options
    this.#target = target
    const { raw } = reply
    raw.once('close', () => {
      if (raw.writableFinished) return
      this.#isGone = true
      this.#passage?.abort(new Error('the caller has gone'))
    })
  }

  ask(path: string, body: PassingBody | undefined): void {
    if (this.#isGone) return
    const request = this.#request
    const { service, template, class: routeClass, needsAddress } = this.#target
    const { serviceTokens, scheme } = this.#options
    const { headers, id, ip } = request
    this.#passage = this.#options.upstream.send(
      {
        ...{ service, path, template, body },
        method: request.method as Dispatcher.HttpMethod,
        headers: requestHeaders(headers, {
          ...{ requestId: id, address: ip, scheme },
          addressProof: needsAddress ? serviceTokens.vouch(addressClaim(id, ip)) : undefined,
        }),
        // The caller's trace goes on; without one a new one begins here.
        traceparent: traceparentOf(request),
        isTraced: request.span?.isRecording === true,
        isLive: routeClass.isLive,
        deadlineMs: deadlineOf(routeClass, {
          query: request.query,
          givenMs: readDeadline(headers[deadlineHeader]),
        }),
      },
      this,
    )
  }

  head(status: number, headers: IncomingHttpHeaders): void {
    const { raw } = this.#reply
    const own: Headers = { ...this.#options.browserHeaders, ...(this.#reply.getHeaders() as Headers) }
    copyEndToEnd(headers, own)
    own['x-request-id'] = this.#request.id
    // From here on the answer is ours: Fastify would put a stream between, and look at each answer again.
    this.#reply.hijack()
    raw.writeHead(status, own)
    if (this.#target.class.isLive) raw.flushHeaders()
    const length = headers['content-length']
    if (length !== undefined) this.#missingBytes = Number(length)
  }

  data(chunk: Buffer): boolean {
    const { raw } = this.#reply
    const isWhole = this.#isFresh && this.#missingBytes === chunk.length
    this.#isFresh = false
    this.#missingBytes -= chunk.length
    if (this.#missingBytes === 0) {
      // The last bytes and the end leave together; a short answer as one text with its head, in one write: two buffers
      // and their `writev` take 20 us more.
      if (isWhole && chunk.length <= shortBytes) raw.end(chunk.toString('latin1'), 'latin1')
      else raw.end(chunk)
      return true
    }
    if (raw.write(chunk)) return true
    raw.once('drain', () => this.#passage?.resume())
    return false
  }

  end(): void {
    if (!this.#reply.raw.writableEnded) this.#reply.raw.end()
  }

  fail(error: Error): void {
    const reply = this.#reply
    if (this.#isGone) {
      if (!reply.sent) reply.hijack()
      return
    }
    if (reply.raw.headersSent) return void reply.raw.destroy(error)
    if (error instanceof ProblemError && error.status >= 500) {
      const { service } = this.#target
      this.#options.telemetry.upstreamFailed({ service, requestId: this.#request.id, err: error.cause })
    }
    // The rest of a body that is refused is not waited for.
    if (!this.#request.raw.complete) reply.header('connection', 'close')
    void reply.send(error)
  }
}
