import type { Readable } from 'node:stream'
import { type Caller, may } from '@cloudphone/contracts/access'
import type { BodyOf, ParamsOf, QueryOf, Route } from '@cloudphone/contracts/route'
import type { ServiceName } from '@cloudphone/contracts/services'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { deadlineHeader, readDeadline } from './deadline.ts'
import { common, type FieldError, ProblemError } from './problem.ts'
import { type Cause, nobody } from './request-scope.ts'
import { addressClaim, addressProofHeader, type ServiceTokens, type TokenVerifier } from './tokens.ts'
import { unfitText } from './unfit-text.ts'

/** A file on its way in: read it once, to its end. */
export interface Upload {
  readonly filename: string
  readonly stream: Readable
  /** True when the stream was cut because it passed the limit; only known at its end. */
  readonly truncated: () => boolean
}

/** What a handler gets: everything parsed and checked by the route's contract. */
export interface Request<R extends Route> {
  readonly params: ParamsOf<R>
  readonly query: QueryOf<R>
  readonly body: BodyOf<R>
  /** The verified caller of a `user` route. Asking for it elsewhere is a programming error and throws. */
  readonly caller: Caller
  /** The calling service of a `service` route. */
  readonly service: ServiceName | undefined
  readonly upload: Upload | undefined
  /**
   * Where the request comes from: as the gateway says, if it proves that it is the gateway, else the other end of the
   * connection. Nobody can take another's address by writing a header.
   */
  clientAddress(): string
  readonly requestId: string
  /**
   * Names this request for ever: the same for each retry under one Idempotency-Key, else new. Use it as the business key
   * of what the request starts, so that a retry after a crash finds the first one.
   */
  readonly requestKey: string
  /** Fires when the caller has gone, its deadline has come or the service stops: a handler that waits answers with what it has. */
  readonly signal: AbortSignal
}

/** By what a service knows who asks. */
export interface Gate {
  readonly service: ServiceName
  readonly tokens: TokenVerifier
  readonly serviceTokens: ServiceTokens
  /** Fires when the service stops. */
  readonly draining: AbortSignal
}

/**
 * Knows the caller, checks all that came by the route's contract, and waits for the file if there is to be one.
 * @throws ProblemError for whatever does not fit.
 */
export async function prepare(
  route: Route,
  { request, reply }: { request: FastifyRequest; reply: FastifyReply },
  options: Gate,
): Promise<{ prepared: (requestKey: string) => Request<Route>; cause: Cause }> {
  const identity = await identify(route, request, options)
  const errors: FieldError[] = []
  const params = parse(route.params, request.params ?? {}, 'params', errors)
  const query = parse(route.query, request.query ?? {}, 'query', errors)
  const body = route.upload === undefined ? parse(route.body, request.body ?? {}, 'body', errors) : undefined
  if (errors.length > 0) throw invalid(errors)
  const gone = new AbortController()
  // The answer's stream tells it: the request's own is closed as soon as its body has been read.
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) gone.abort(new Error('the caller has gone'))
  })
  const upload = route.upload === undefined ? undefined : await uploadOf(request, route)
  const leftMs = readDeadline(request.headers[deadlineHeader])
  const ends = [gone.signal, options.draining]
  if (leftMs !== undefined) ends.push(AbortSignal.timeout(leftMs))
  const prepared = (requestKey: string): Request<Route> => ({
    params,
    query,
    body,
    get caller(): Caller {
      if (identity.caller === undefined) throw new Error(`route ${route.name} has no caller`)
      return identity.caller
    },
    service: identity.service,
    upload,
    clientAddress: () => addressOf(request, options),
    requestId: request.id,
    requestKey,
    signal: AbortSignal.any(ends),
  })
  return { prepared, cause: causeOf(request, identity, options) }
}

/** Who does what this request changes. */
function causeOf(
  request: FastifyRequest,
  { caller, service }: { caller?: Caller; service?: ServiceName },
  gate: Gate,
): Cause {
  return {
    actor: caller?.userId ?? (service === undefined ? nobody : `system:${service}`),
    requestId: request.id,
    sessionId: caller?.sessionId ?? null,
    // A service that calls another has nothing to say of an address.
    address: service === undefined ? addressOf(request, gate) : null,
  }
}

function invalid(errors: FieldError[]): ProblemError {
  const first = errors[0]
  const detail = first === undefined ? '' : ` ${first.path}: ${first.message}`
  return new ProblemError({
    status: 400,
    code: 'invalid_request',
    detail: `The request does not fit the contract.${detail}`,
    errors,
  })
}

function parse(schema: z.ZodType, value: unknown, place: string, errors: FieldError[]): unknown {
  const result = schema.safeParse(value)
  if (result.success) {
    const unfit = unfitText(result.data)
    if (unfit === undefined) return result.data
    errors.push({
      path: [place, ...unfit].join('.'),
      message: 'text must be whole Unicode characters, without U+0000',
    })
    return undefined
  }
  for (const issue of result.error.issues.slice(0, 20)) {
    errors.push({ path: [place, ...issue.path].map(String).join('.'), message: issue.message })
  }
  return undefined
}

async function identify(
  { access }: Route,
  request: FastifyRequest,
  options: Gate,
): Promise<{ caller?: Caller; service?: ServiceName }> {
  if (access.kind === 'public') return {}
  const token = /^Bearer (\S{1,8192})$/.exec(headerOf(request, 'authorization') ?? '')?.[1]
  if (token === undefined) throw common.unauthenticated()
  if (access.kind === 'service')
    return { service: await options.serviceTokens.verify(token, options.service) }
  const caller = await options.tokens.verify(token)
  if (access.permission !== 'self' && !may(caller, access.permission)) {
    throw common.forbidden({ permission: access.permission })
  }
  return { caller }
}

function addressOf(request: FastifyRequest, { serviceTokens }: Gate): string {
  const told = headerOf(request, 'x-forwarded-for')
  const proof = headerOf(request, addressProofHeader)
  if (told === undefined || proof === undefined) return request.ip
  return serviceTokens.isVouched(addressClaim(request.id, told), proof) ? told : request.ip
}

async function uploadOf(request: FastifyRequest, route: Route): Promise<Upload> {
  if (!request.isMultipart()) throw common.unsupported_media_type({ wanted: 'multipart/form-data' })
  const file = await request.file()
  if (file === undefined || file.fieldname !== route.upload) {
    throw new ProblemError({
      status: 400,
      code: 'file_missing',
      detail: `The form has no file in its field '${route.upload}'.`,
    })
  }
  return { filename: file.filename, stream: file.file, truncated: () => file.file.truncated }
}

/** The first value of a header. */
export function headerOf(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name]
  return Array.isArray(value) ? value[0] : value
}
