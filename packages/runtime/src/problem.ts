import type { Problem } from '@cloudphone/contracts/route'

/** One thing that is wrong with a request, and where. */
export interface FieldError {
  /** Such as `body.cpuCores`. */
  readonly path: string
  readonly message: string
}

/** An error that a caller should see. Thrown by domain code; rendered as application/problem+json by the HTTP binder. */
export class ProblemError extends Error {
  readonly status: number
  readonly code: string
  readonly errors: readonly FieldError[] | undefined
  /** Further members of the problem document, such as `sagaId`. */
  readonly members: Readonly<Record<string, unknown>>
  /** False: trying the same again can never help. Consumers and sagas give up at once. */
  readonly retryable: boolean
  readonly retryAfterSeconds: number | undefined

  constructor(options: {
    status: number
    code: string
    detail: string
    errors?: readonly FieldError[]
    members?: Readonly<Record<string, unknown>>
    retryable?: boolean
    retryAfterSeconds?: number
    cause?: unknown
  }) {
    super(options.detail, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'ProblemError'
    this.status = options.status
    this.code = options.code
    this.errors = options.errors
    this.members = options.members ?? {}
    this.retryable = options.retryable ?? (options.status >= 500 || options.status === 429)
    this.retryAfterSeconds = options.retryAfterSeconds
  }
}

/**
 * Makes a catalogue of problems: each entry is a status and a template, each use is
 * `throw problems.device_not_found({ deviceId })`. `{name}` in a template is replaced by the value of that name, which
 * also becomes a member of the document.
 */
export function defineProblems<
  const Catalogue extends Record<string, readonly [status: number, template: string]>,
>(
  catalogue: Catalogue,
): { readonly [Code in keyof Catalogue]: (members?: Record<string, unknown>) => ProblemError } {
  const made = Object.entries(catalogue).map(([code, [status, template]]) => [
    code,
    (members: Record<string, unknown> = {}) =>
      new ProblemError({ status, code, detail: fill(template, members), members }),
  ])
  return Object.fromEntries(made) as {
    [Code in keyof Catalogue]: (members?: Record<string, unknown>) => ProblemError
  }
}

function fill(template: string, members: Record<string, unknown>): string {
  return template.replaceAll(/\{(\w+)\}/g, (whole, name: string) =>
    name in members ? String(members[name]) : whole,
  )
}

/** Problems that any route may answer. */
export const common = defineProblems({
  invalid_request: [400, 'The request does not fit the contract.'],
  form_malformed: [400, 'The form ends before its last boundary, or names none.'],
  unauthenticated: [401, 'Sign in first: send an access token or an API key as a Bearer token.'],
  token_expired: [401, 'The access token has expired; refresh it.'],
  token_revoked: [401, 'The access token was revoked; refresh it or sign in again.'],
  invalid_token: [401, 'The access token is not valid here.'],
  forbidden: [403, 'Your role may not do this; it needs the permission {permission}.'],
  not_found: [404, 'There is no {method} {path}.'],
  request_in_progress: [409, 'A request with this Idempotency-Key is still being handled; ask again later.'],
  body_too_large: [413, 'The body is larger than the {limitBytes} bytes allowed here.'],
  unsupported_media_type: [415, 'This route takes {wanted}.'],
  idempotency_key_reused: [422, 'This Idempotency-Key was used for another body; use a new key.'],
  rate_limited: [429, 'Too many requests; try again in {retryAfterSeconds} s.'],
  internal_error: [500, 'Something went wrong here. The request id tells us what.'],
  service_unavailable: [503, 'The {service} service does not answer now; try again.'],
  deadline_exceeded: [504, 'The answer did not come in the {waitedMs} ms that were left for it; try again.'],
})

/**
 * The kernel's errors know their status and code too, without knowing this class. Anything else is internal: its text
 * stays in our log.
 */
function asProblem(error: unknown): ProblemError {
  if (error instanceof ProblemError) return error
  if (!(error instanceof Error)) return common.internal_error()
  const {
    status,
    code,
    name: _name,
    retryable: _retryable,
    ...members
  } = error as Error & Record<string, unknown>
  if (typeof status !== 'number' || status < 400 || status > 599 || typeof code !== 'string') {
    return common.internal_error()
  }
  return new ProblemError({ status, code, detail: error.message, members })
}

/** The document of an error (RFC 9457). Anything that is not a ProblemError says nothing about our inside. */
export function renderProblem(error: unknown, requestId: string): { status: number; document: Problem } {
  const problem = asProblem(error)
  return {
    status: problem.status,
    document: {
      ...problem.members,
      type: `urn:cloudphone:problem:${problem.code}`,
      title: problem.code.replaceAll('_', ' '),
      status: problem.status,
      detail: problem.message,
      code: problem.code,
      requestId,
      success: false,
      ...(problem.errors && { errors: [...problem.errors] }),
    },
  }
}
