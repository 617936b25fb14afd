import type { ClientConfig } from 'pg'
import { columnTypes } from './column-types.ts'

/**
 * Where a database is: a `postgres://` URL. A unix socket is written as libpq and pg both read it,
 * `postgres://user:pass@localhost/db?host=/path/of/the/directory`: `host` in the query wins over the
 * placeholder. libpq's shorter `postgres://user:pass@/db?host=/path` is accepted too.
 */
export type DatabaseTarget = string

/** Parts of a target that a caller may replace. */
export interface TargetParts {
  user?: string
  password?: string
  database?: string
}

/** Builds the target of a server that listens on a unix socket in `directory`. */
export function socketTarget(
  directory: string,
  parts: Required<TargetParts> & { port?: number },
): DatabaseTarget {
  const url = new URL('postgres://localhost/')
  url.username = encodeURIComponent(parts.user)
  url.password = encodeURIComponent(parts.password)
  url.pathname = `/${encodeURIComponent(parts.database)}`
  url.searchParams.set('host', directory)
  if (parts.port !== undefined) url.searchParams.set('port', String(parts.port))
  return url.href
}

/** The same server with another user, password or database. */
export function retarget(target: DatabaseTarget, parts: TargetParts): DatabaseTarget {
  const url = parseTarget(target)
  if (parts.user !== undefined) url.username = encodeURIComponent(parts.user)
  if (parts.password !== undefined) url.password = encodeURIComponent(parts.password)
  if (parts.database !== undefined) url.pathname = `/${encodeURIComponent(parts.database)}`
  return url.href
}

/** Reads what a target says about its user, password and database. */
export function describeTarget(target: DatabaseTarget): Required<TargetParts> {
  const url = parseTarget(target)
  return {
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.slice(1)),
  }
}

/** A target fit for a log line: no password. */
export function redactTarget(target: DatabaseTarget): string {
  const url = parseTarget(target)
  if (url.password !== '') url.password = '***'
  return url.href
}

/**
 * What `pg` connects with. Fails after 10 s instead of waiting for ever, keeps TCP alive, and reads
 * columns by our `columnTypes` without touching the driver's process-wide parsers.
 */
export function clientConfig(target: DatabaseTarget, applicationName: string): ClientConfig {
  return {
    connectionString: parseTarget(target).href,
    application_name: applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    connectionTimeoutMillis: 10_000,
    types: columnTypes,
  }
}

function parseTarget(target: DatabaseTarget): URL {
  // WHATWG URLs refuse credentials without a host; libpq allows them when ?host= names a socket.
  const withHost = target.replace(/^(postgres(?:ql)?:\/\/[^/?#]*@)(?=\/)/, '$1localhost')
  const url = URL.parse(withHost)
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) {
    // The target itself stays out of the message: it may hold a password.
    throw new Error(
      'Database URL: cannot be read; expected postgres://user:password@host:5432/name or postgres://user:password@localhost/name?host=/socket/directory',
    )
  }
  return url
}
