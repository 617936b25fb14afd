/* Which pages of other origins may use the API from a browser. @see https://fetch.spec.whatwg.org/#http-cors-protocol */

/** True for `*`, and for an origin as a browser writes it: scheme, host and a port that is not the scheme's own. */
export function isOrigin(text: string): boolean {
  if (text === '*') return true
  if (!URL.canParse(text)) return false
  const { protocol, origin } = new URL(text)
  return (protocol === 'https:' || protocol === 'http:') && origin === text
}

const methods = 'GET, POST, PUT, PATCH, DELETE'
const requestHeaders = 'authorization, content-type, idempotency-key, traceparent, x-api-key, x-request-id'
const exposed =
  'ratelimit-limit, ratelimit-policy, ratelimit-remaining, ratelimit-reset, retry-after, x-request-id'
const preflightSeconds = '600'

type CorsHeaders = Readonly<Record<string, string>>

/**
 * What an answer says to a browser whose page is of `origin`; undefined for an origin that is not allowed: then the browser
 * keeps the answer from the page. Credentials only for origins that are listed by name.
 */
export function corsHeaders(origin: string, allowed: readonly string[]): CorsHeaders | undefined {
  const isListed = origin !== '*' && allowed.includes(origin)
  if (!isListed && !allowed.includes('*')) return undefined
  return {
    'access-control-allow-origin': isListed ? origin : '*',
    ...(isListed && { 'access-control-allow-credentials': 'true' }),
    'access-control-expose-headers': exposed,
    'cross-origin-resource-policy': 'cross-origin',
  }
}

/** What a preflight's answer says besides. */
export const preflightHeaders: CorsHeaders = {
  'access-control-allow-methods': methods,
  'access-control-allow-headers': requestHeaders,
  'access-control-max-age': preflightSeconds,
}
