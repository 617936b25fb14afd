import type { FastifyInstance } from 'fastify'
import { corsHeaders, preflightHeaders } from '../domain/cors.ts'

/** No answer of ours is framed, sniffed or cached. */
const plainHeaders = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'permissions-policy': 'camera=(), geolocation=(), microphone=()',
  'cache-control': 'no-store',
}
const closedPolicy = "default-src 'none'; frame-ancestors 'none'"
/** Half a year. */
const tlsPolicy = 'max-age=15552000; includeSubDomains'

/** What every answer tells browsers. The docs bring a content policy of their own. */
export function browserHeaders({ isBehindTls }: { isBehindTls: boolean }): Readonly<Record<string, string>> {
  return {
    ...plainHeaders,
    ...(isBehindTls && { 'strict-transport-security': tlsPolicy }),
    'content-security-policy': closedPolicy,
  }
}

/**
 * Tells browsers how to treat answers, and which pages of other origins may read them. Answers that pass Fastify by, as
 * those of services do, say the first by themselves: setting headers one by one is a good part of what a request costs.
 */
export function guardBrowsers(
  app: FastifyInstance,
  { origins, headers }: { origins: readonly string[]; headers: Readonly<Record<string, string>> },
): void {
  const { 'content-security-policy': _own, ...forDocs } = headers
  app.addHook('onSend', (request, reply, payload, done) => {
    const wanted = request.url.startsWith('/api/docs') ? forDocs : headers
    for (const [name, value] of Object.entries(wanted)) if (!reply.hasHeader(name)) reply.header(name, value)
    done(null, payload)
  })
  if (origins.length === 0) return
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('vary', 'Origin')
    const { origin } = request.headers
    if (origin === undefined) return done()
    const allowed = corsHeaders(origin, origins)
    if (allowed !== undefined) reply.headers(allowed)
    // A preflight comes without a token, and asks nothing of any service.
    const isPreflight =
      request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined
    if (!isPreflight || allowed === undefined) return done()
    reply.headers(preflightHeaders).code(204).send()
  })
}
