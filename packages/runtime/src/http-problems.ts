import type { Logger } from '@cloudphone/observe/log'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { common, ProblemError, renderProblem } from './problem.ts'

/** Of a JSON body. */
export const bodyLimitBytes = 1024 * 1024

/** Answers whatever is refused or fails by a problem document (RFC 9457). */
export function addProblems(app: FastifyInstance, log: Logger): void {
  app.setErrorHandler(async (error, request, reply) => sendProblem(error, request, reply, log))
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

/** Answers by a problem document; what is our own fault is logged. */
export function sendProblem(
  failure: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  log: Logger,
): FastifyReply {
  const error = translate(failure)
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
