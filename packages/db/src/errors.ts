/** The database cannot be reached or cut the connection. Nothing is wrong with the request: retry later. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
  readonly code = 'database_unavailable'
  readonly retryable = true

  constructor(cause: unknown) {
    super(`Database unavailable: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
  }
}

// SQLSTATE classes: PostgreSQL manual, appendix A. 08 connection exceptions, 57P01-57P05 shutdown and
// termination, 53300 too many connections, 57P03 starting up, 25P03 idle-in-transaction timeout
// (it closes the session).
const UNAVAILABLE = new Set(['57P01', '57P02', '57P03', '57P05', '53300', '25P03'])
const SOCKET_ERRORS = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
])
// pg raises these without a code.
const DRIVER_MESSAGES =
  /^(Connection terminated|Client has encountered a connection error|timeout exceeded when trying to connect|timeout expired|Client was closed|Cannot use a pool after calling end)/

const SERIALIZATION_FAILURE = '40001'
const DEADLOCK_DETECTED = '40P01'
const UNIQUE_VIOLATION = '23505'

/** True when the error, or what caused it, is a lost or refused connection. */
export function isUnavailable(error: unknown): boolean {
  return chain(error).some((link) => {
    if (link instanceof DatabaseUnavailable) return true
    const code = codeOf(link)
    if (code !== undefined && (code.startsWith('08') || UNAVAILABLE.has(code) || SOCKET_ERRORS.has(code))) {
      return true
    }
    return link instanceof Error && DRIVER_MESSAGES.test(link.message)
  })
}

/** True when running the same transaction again may succeed: serialization failure or deadlock. */
export function isConflict(error: unknown): boolean {
  return chain(error).some((link) => {
    const code = codeOf(link)
    return code === SERIALIZATION_FAILURE || code === DEADLOCK_DETECTED
  })
}

/** True for a violated unique constraint; of the named one when `constraint` is given. */
export function isUniqueViolation(error: unknown, constraint?: string): boolean {
  return chain(error).some(
    (link) =>
      codeOf(link) === UNIQUE_VIOLATION &&
      (constraint === undefined ||
        (typeof link === 'object' &&
          link !== null &&
          'constraint' in link &&
          link.constraint === constraint)),
  )
}

/** Turns a lost connection into `DatabaseUnavailable`; any other error stays itself. */
export function translated(error: unknown): unknown {
  if (error instanceof DatabaseUnavailable || !isUnavailable(error)) return error
  return new DatabaseUnavailable(error)
}

function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** The error and what caused it; a failed rollback on a cut connection may hide the first cause. */
function chain(error: unknown): unknown[] {
  const links: unknown[] = []
  const queue = [error]
  while (queue.length > 0 && links.length < 16) {
    const link = queue.shift()
    if (link === undefined || link === null) continue
    links.push(link)
    if (link instanceof AggregateError) queue.push(...link.errors)
    if (link instanceof Error) queue.push(link.cause)
  }
  return links
}
