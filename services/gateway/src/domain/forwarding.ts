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
  'x-address-proof',
  'x-api-key',
  'x-deadline-ms',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-real-ip',
  'x-request-id',
])

export type Headers = Record<string, string | string[]>

/** The headers that go on beyond this hop: none of the connection's own, nor those that its `Connection` names. */
export function endToEnd(headers: IncomingHttpHeaders): Headers {
  const kept: Headers = {}
  copyEndToEnd(headers, kept)
  return kept
}

/** The same, into an object that has some already; those of `headers` win. */
export function copyEndToEnd(headers: IncomingHttpHeaders, into: Headers): void {
  const named = namedBy(headers.connection)
  for (const name in headers) {
    if (hopByHop.has(name) || named?.has(name)) continue
    const value = headers[name]
    if (value !== undefined) into[name] = value
  }
}

/** The headers that `Connection` names; undefined for none, as nearly always. */
function namedBy(connection: string | undefined): ReadonlySet<string> | undefined {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return undefined
  return new Set(connection.split(',').map((name) => name.trim().toLowerCase()))
}

/** What this door says of a request itself. */
export interface OwnHeaders {
  readonly requestId: string
  readonly address: string
  /** How the caller speaks to the platform; TLS ends in front of this door, if anywhere. */
  readonly scheme: 'http' | 'https'
  /** That the address is told by this door, for who counts by it. */
  readonly addressProof?: string | undefined
}

/** A request's headers as the service behind the gateway sees them: names and values in turn. */
export function requestHeaders(headers: IncomingHttpHeaders, own: OwnHeaders): string[] {
  const named = namedBy(headers.connection)
  const kept: string[] = []
  // One loop and no objects on the way: this runs for every request.
  for (const name in headers) {
    if (hopByHop.has(name) || ownHeaders.has(name) || named?.has(name)) continue
    const value = headers[name]
    if (typeof value === 'string') kept.push(name, value)
    else if (value !== undefined) for (const one of value) kept.push(name, one)
  }
  kept.push('x-request-id', own.requestId, 'x-forwarded-for', own.address, 'x-forwarded-proto', own.scheme)
  if (own.addressProof !== undefined) kept.push('x-address-proof', own.addressProof)
  if (headers.host !== undefined) kept.push('x-forwarded-host', headers.host)
  return kept
}

const climbing = /[/\\\p{Cc}]/u

/**
 * The path that a matched request goes on to: made from the route's template and its parameters, never copied from the
 * request line, so that both sides cannot read one path in two ways. Undefined for a parameter that could climb.
 */
export function upstreamPath(
  template: string,
  params: Readonly<Record<string, string>>,
  rawUrl: string,
): string | undefined {
  for (const name in params) {
    const value = params[name] ?? ''
    if (value === '' || value === '.' || value === '..' || climbing.test(value)) return undefined
  }
  const path = template.includes(':')
    ? template.replaceAll(/:(\w+)/g, (_whole, name: string) => encodeURIComponent(params[name] ?? ''))
    : template
  const queryAt = rawUrl.indexOf('?')
  if (queryAt === -1) return path
  const fragmentAt = rawUrl.indexOf('#', queryAt)
  return path + rawUrl.slice(queryAt, fragmentAt === -1 ? undefined : fragmentAt)
}
