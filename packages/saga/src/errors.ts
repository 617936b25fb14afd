/** Thrown by a step to skip the retries: an invalid request, bad credentials, an exceeded quota. */
export class PermanentError extends Error {
  override readonly name: string = 'PermanentError'
  readonly code: string
  readonly retryable = false

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Another saga about the same subject is still going on. */
export class OperationInProgress extends Error {
  override readonly name = 'OperationInProgress'
  readonly code = 'operation_in_progress'
  readonly retryable = false
  readonly status = 409
  readonly sagaId: string

  constructor(subject: string, sagaId: string) {
    super(`Another operation on ${subject} is in progress: ${sagaId}`)
    this.sagaId = sagaId
  }
}

/** The business key was used before, for something else. */
export class SagaKeyReused extends Error {
  override readonly name = 'SagaKeyReused'
  readonly code = 'saga_key_reused'
  readonly retryable = false
  readonly status = 422
  readonly sagaId: string

  constructor(type: string, businessKey: string, sagaId: string) {
    super(`The key "${businessKey}" already started ${type} ${sagaId} with another input`)
    this.sagaId = sagaId
  }
}

/** No saga has this id (or it was purged). */
export class SagaNotFound extends Error {
  override readonly name = 'SagaNotFound'
  readonly code = 'saga_not_found'
  readonly retryable = false
  readonly status = 404

  constructor(sagaId: string) {
    super(`No saga has the id "${sagaId}"`)
  }
}

/** What an operator asked for does not fit where the saga stands. */
export class IllegalSagaOperation extends Error {
  override readonly name = 'IllegalSagaOperation'
  readonly code = 'illegal_saga_operation'
  readonly retryable = false
  readonly status = 409
}

/** Live sagas need definitions that this process does not have: it must not start in their service's place. */
export class MissingDefinition extends Error {
  override readonly name = 'MissingDefinition'
  readonly code = 'saga_definition_missing'
  readonly retryable = false
}

/** A definition that cannot be right; the message says where and what is allowed. */
export class InvalidDefinition extends Error {
  override readonly name = 'InvalidDefinition'
  readonly code = 'invalid_saga_definition'
  readonly retryable = false
}

/** What is kept of an error: never its stack, never a secret. */
export interface Failure {
  readonly message: string
  readonly code: string
  readonly retryable: boolean
}

const MAX_MESSAGE_CHARS = 1_000
const SECRETS: readonly [RegExp, string][] = [
  [/(\w+:\/\/[^\s:/@]+):[^\s@/]+@/g, '$1:***@'],
  [/\b(bearer|basic)\s+[\w.~+/=-]+/gi, '$1 ***'],
  [
    /\b(password|passwd|secret|token|api[_-]?key|access[_-]?key)(["']?\s*[=:]\s*["']?)[^\s"',;&]+/gi,
    '$1$2***',
  ],
]

/** Reads any thrown value. An error that says `retryable: false` is permanent; everything else is tried again. */
export function failureOf(thrown: unknown): Failure {
  const raw = thrown instanceof Error ? thrown.message : String(thrown)
  const facts: { code?: unknown; retryable?: unknown } =
    typeof thrown === 'object' && thrown !== null ? thrown : {}
  return {
    message: withoutSecrets(raw === '' && thrown instanceof Error ? thrown.name : raw),
    code: typeof facts.code === 'string' ? facts.code : 'error',
    retryable: facts.retryable !== false,
  }
}

/** Strikes out credentials as they appear in URLs, headers and settings, and cuts the text to 1,000 characters. */
export function withoutSecrets(text: string): string {
  let clean = text.slice(0, MAX_MESSAGE_CHARS * 2)
  for (const [pattern, replacement] of SECRETS) clean = clean.replaceAll(pattern, replacement)
  return clean.slice(0, MAX_MESSAGE_CHARS)
}
