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

/** What browsers are told: how to treat answers, and which pages of other origins may read them. */
export function guardBrowsers(
  app: FastifyInstance,
  { origins, isBehindTls }: { origins: readonly string[]; isBehindTls: boolean },
): void {
  const forDocs = isBehindTls ? { ...plainHeaders, 'strict-transport-security': tlsPolicy } : plainHeaders
  const forAll = { ...forDocs, 'content-security-policy': closedPolicy }
  app.addHook('onRequest', (request, reply, done) => {
    // The docs bring a content policy of their own.
    reply.headers(request.url.startsWith('/api/docs') ? forDocs : forAll)
    if (origins.length === 0) return done()
    reply.header('vary', 'Origin')
    const { origin } = request.headers
    if (origin === undefined) return done()
    const headers = corsHeaders(origin, origins)
    if (headers !== undefined) reply.headers(headers)
    // A preflight comes without a token, and asks nothing of any service.
    const isPreflight =
      request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined
    if (!isPreflight || headers === undefined) return done()
    reply.headers(preflightHeaders).code(204).send()
  })
}
