/** What the phone host refuses or cannot do, as its API tells it. */
export class HostError extends Error {
  override readonly name = 'HostError'
  readonly code: string
  readonly status: number
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined

  constructor(options: {
    code: string
    status: number
    message: string
    retryable: boolean
    retryAfterMs?: number
  }) {
    super(options.message)
    this.code = options.code
    this.status = options.status
    this.retryable = options.retryable
    this.retryAfterMs = options.retryAfterMs
  }
}

export function phoneNotFound(id: string): HostError {
  return new HostError({
    code: 'phone_not_found',
    status: 404,
    message: `no phone ${id} on this host`,
    retryable: false,
  })
}

export function portInUse(port: number): HostError {
  return new HostError({
    code: 'port_in_use',
    status: 409,
    message: `adb port 127.0.0.1:${port} is in use on this machine`,
    retryable: false,
  })
}
