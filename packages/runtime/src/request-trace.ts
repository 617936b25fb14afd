import {
  inTrace,
  newTraceparent,
  type Span,
  type Traceparent,
  type Tracer,
  wellFormed,
  within,
} from '@cloudphone/observe/trace'
import type { FastifyInstance, FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyRequest {
    /** Of the whole request; undefined where nothing is exported. */
    span: Span | undefined
  }
}

/** Asked every few seconds by whoever watches: they would be most of what a collector sees. */
const watched = new Set(['/health/live', '/health/ready', '/metrics'])

/**
 * Makes every request a span, from its arrival to the end of its answer, under the caller's trace.
 * @see https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
 */
export function traceRequests(app: FastifyInstance, tracer: Tracer | undefined): void {
  app.decorateRequest('span', undefined)
  if (tracer === undefined) return
  app.addHook('onRequest', (request, reply, done) => {
    const route = request.routeOptions.url
    if (route === undefined || !watched.has(route)) {
      const span = tracer.start({
        name: route === undefined ? request.method : `${request.method} ${route}`,
        kind: 'server',
        parent: givenTraceparent(request),
        attributes: {
          'http.request.method': request.method,
          'http.route': route,
          'url.path': request.raw.url?.split('?', 1)[0],
          'url.scheme': 'http',
          'cloudphone.request_id': request.id,
        },
      })
      request.span = span
      if (!span.isRecording) return void within(span, done)
      // Told of every answer, also of one whose reader has gone: Fastify's own hook is not.
      reply.raw.once('close', () => {
        if (reply.raw.writableFinished) span.note({ 'http.response.status_code': reply.raw.statusCode })
        else span.fail('the caller has gone', 'caller_gone')
        const { statusCode } = reply.raw
        if (statusCode >= 500) span.fail(`HTTP ${statusCode}`, String(statusCode))
        span.end()
      })
      within(span, done)
    } else done()
  })
}

/** Runs `work` in the trace of the request: its span's if it has one, else the caller's, else a new one. */
export function inRequestTrace<T>(request: FastifyRequest, work: () => T): T {
  return request.span === undefined ? inTrace(givenTraceparent(request), work) : within(request.span, work)
}

/** The trace in which `inRequestTrace` would run work, for work that says it by itself. */
export function traceparentOf(request: FastifyRequest): Traceparent {
  return request.span?.traceparent ?? wellFormed(givenTraceparent(request)) ?? newTraceparent()
}

function givenTraceparent(request: FastifyRequest): string | undefined {
  const given = request.headers.traceparent
  return typeof given === 'string' ? given : undefined
}
