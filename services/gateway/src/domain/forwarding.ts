/* What passes from a caller to a service, and what does not. */
import type { IncomingHttpHeaders } from 'node:http'

/** Headers that concern one connection only (RFC 9110, section 7.6.1), with those of older habits. */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

/** Set anew at this door, so that nobody can pretend to be behind another proxy, or to have shown a key. */
const ownHeaders = new Set([
  'expect',
  'forwarded',
  'host',
  'traceparent',
  'x-api-key',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-gateway-token',
  'x-real-ip',
  'x-request-id',
])

export type Headers = Record<string, string | string[]>

/** The headers that go on beyond this hop: none of the connection's own, nor those that its `Connection` names. */
export function endToEnd(headers: IncomingHttpHeaders): Headers {
  const connection = headers.connection ?? ''
  const named = new Set(connection.split(',').map((name) => name.trim().toLowerCase()))
  const kept: Headers = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined && !hopByHop.has(name) && !named.has(name)) kept[name] = value
  }
  return kept
}

/** A request's headers as the service behind the gateway sees them. */
export function requestHeaders(
  headers: IncomingHttpHeaders,
  own: { requestId: string; traceparent: string | undefined; address: string; proof: string },
): Headers {
  const kept = Object.entries(endToEnd(headers)).filter(([name]) => !ownHeaders.has(name))
  return {
    ...Object.fromEntries(kept),
    'x-request-id': own.requestId,
    'x-forwarded-for': own.address,
    'x-gateway-token': own.proof,
    'x-forwarded-proto': 'http',
    ...(headers.host !== undefined && { 'x-forwarded-host': headers.host }),
    ...(own.traceparent !== undefined && { traceparent: own.traceparent }),
  }
}

/**
 * The path that a matched request goes on to: made from the route's template and its parameters, never copied from the
 * request line, so that both sides cannot read one path in two ways. Undefined for a parameter that could climb.
 */
export function upstreamPath(
  template: string,
  params: Readonly<Record<string, string>>,
  rawUrl: string,
): string | undefined {
  const values = Object.values(params)
  if (values.some((value) => value === '' || value === '.' || value === '..' || /[/\\\p{Cc}]/u.test(value))) {
    return undefined
  }
  const path = template.replaceAll(/:(\w+)/g, (_whole, name: string) =>
    encodeURIComponent(params[name] ?? ''),
  )
  const query = /\?[^#]*/.exec(rawUrl)?.[0] ?? ''
  return path + query
}
