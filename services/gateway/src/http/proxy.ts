import { RetrySaga, SkipSagaStep, TurnSagaBack } from '@cloudphone/contracts/api/operator-api'
import { GetSaga } from '@cloudphone/contracts/api/platform-api'
import { publicRoutes } from '@cloudphone/contracts/routes'
import { type ServiceName, serviceOfSaga } from '@cloudphone/contracts/services'
import { currentTraceparent } from '@cloudphone/observe/trace'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { inRequestTrace } from '@cloudphone/runtime/request-trace'
import type { ServiceTokens } from '@cloudphone/runtime/tokens'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { endToEnd, requestHeaders, upstreamPath } from '../domain/forwarding.ts'
import { problems } from '../errors.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import { hasBody, passBody } from './request-body.ts'
import type { Upstream } from './upstream.ts'

/** Served by the service that runs the saga: the id's prefix tells which. */
const sagaRoutes = [GetSaga, RetrySaga, SkipSagaStep, TurnSagaBack]

interface ProxyOptions {
  readonly upstream: Upstream
  readonly telemetry: GatewayTelemetry
  /** By which services know that the address of a caller is told by this gateway. */
  readonly serviceTokens: ServiceTokens
}

/**
 * Forwards every public route to the service that owns it. Bodies pass as they come, in both directions, parsed by
 * nobody here: a 2 GiB upload takes no more memory than a short one.
 */
export async function proxyRoutes(app: FastifyInstance, options: ProxyOptions): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null, undefined))
    for (const { method, path, service } of publicRoutes) {
      if (service === 'gateway') continue
      scope.route({
        method,
        url: path,
        handler: (request, reply) => forward(request, reply, { ...options, service, template: path }),
      })
    }
    for (const { method, path } of sagaRoutes) {
      scope.route({
        method,
        url: path,
        handler: (request, reply) => {
          const { sagaId } = request.params as { sagaId: string }
          const service = serviceOfSaga(sagaId)
          if (service === undefined) throw problems.saga_not_found({ sagaId })
          return forward(request, reply, { ...options, service, template: path })
        },
      })
    }
  })
}

async function forward(
  request: FastifyRequest,
  reply: FastifyReply,
  options: ProxyOptions & { service: ServiceName; template: string },
): Promise<FastifyReply> {
  const { upstream, telemetry, serviceTokens, service, template } = options
  const params = request.params as Record<string, string>
  const path = upstreamPath(template, params, request.raw.url ?? '')
  if (path === undefined) throw common.not_found({ method: request.method, path: template })
  const proof = await serviceTokens.sign('gateway', service)
  const gone = new AbortController()
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new Error('the caller has gone'))
  })
  try {
    // The caller's trace goes on; without one a new one begins here.
    const response = await inRequestTrace(request, () =>
      upstream.send({
        ...{ service, path, template },
        method: request.method as Dispatcher.HttpMethod,
        headers: requestHeaders(request.headers, {
          requestId: request.id,
          traceparent: currentTraceparent(),
          address: request.ip,
          proof,
        }),
        body: hasBody(request.raw) ? passBody(request.raw) : undefined,
        signal: gone.signal,
      }),
    )
    return await answer(reply, response, request)
  } catch (error) {
    if (gone.signal.aborted) return reply.hijack()
    if (error instanceof ProblemError) {
      telemetry.upstreamFailed({ service, requestId: request.id, err: error.cause })
    }
    throw error
  }
}

async function answer(
  reply: FastifyReply,
  response: Dispatcher.ResponseData,
  request: FastifyRequest,
): Promise<FastifyReply> {
  reply.code(response.statusCode).headers(endToEnd(response.headers))
  reply.header('x-request-id', request.id)
  if (request.method === 'HEAD' || response.statusCode === 204 || response.statusCode === 304) {
    await response.body.dump()
    return reply.send()
  }
  return reply.send(response.body)
}
