import type { ServiceName } from '@cloudphone/contracts/services'
import { currentTraceparent, type Tracer } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { inClientSpan } from '@cloudphone/runtime/client-span'
import { common } from '@cloudphone/runtime/problem'
import { Agent, type Dispatcher } from 'undici'
import type { Headers } from '../domain/forwarding.ts'
import type { PassingBody } from './request-body.ts'

/** A request for a service, whichever of its instances takes it. */
export interface ForwardedRequest {
  readonly service: ServiceName
  readonly method: Dispatcher.HttpMethod
  readonly path: string
  /** The route's path with its parameters unfilled: names the span. */
  readonly template: string
  readonly headers: Headers
  readonly body: PassingBody | undefined
  readonly signal: AbortSignal
}

/** The services behind the gateway. */
export interface Upstream {
  /** The answer's head, with its body as a stream. @throws ProblemError `service_unavailable` when nobody answers. */
  send(request: ForwardedRequest): Promise<Dispatcher.ResponseData>
  /** An instance of a service, in turn; undefined when none is known. */
  addressOf(service: ServiceName): Promise<string | undefined>
  close(): Promise<void>
}

/** Longer than the longest `?wait=` (60 s). */
const headersTimeoutMs = 75_000
const bodyTimeoutMs = 60_000
const connectTimeoutMs = 2_000

/** The connection never came about: nothing was sent, whatever the method. */
const neverSent = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
])
/** The connection broke: the other side may have acted or not. */
const broken = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])
const idempotent = new Set<Dispatcher.HttpMethod>(['GET', 'HEAD', 'PUT', 'DELETE'])

/** Opens connections to services on demand, keeps them alive and takes the addresses of each service in turn. */
export function openUpstream(registry: Registry, tracer: Tracer | undefined): Upstream {
  const agent = new Agent({
    connections: 1_024,
    keepAliveTimeout: 30_000,
    headersTimeout: headersTimeoutMs,
    bodyTimeout: bodyTimeoutMs,
    connect: { timeout: connectTimeoutMs },
  })
  const turns = new Map<ServiceName, number>()

  const inTurn = async (service: ServiceName): Promise<readonly string[]> => {
    const addresses = await registry.lookup(service)
    const turn = (turns.get(service) ?? 0) % Math.max(addresses.length, 1)
    turns.set(service, turn + 1)
    return [...addresses.slice(turn), ...addresses.slice(0, turn)]
  }

  return {
    addressOf: async (service) => (await inTurn(service))[0],
    send: async (request) => {
      const addresses = await inTurn(request.service)
      const [first, second = first] = addresses
      if (first === undefined || second === undefined) throw unavailable(request.service)
      try {
        return await attempt({ agent, tracer }, first, request)
      } catch (error) {
        if (!mayTryAgain(error, request)) throw unavailable(request.service, error)
      }
      try {
        return await attempt({ agent, tracer }, second, request)
      } catch (error) {
        throw unavailable(request.service, error)
      }
    },
    close: () => agent.destroy(),
  }
}

function attempt(
  { agent, tracer }: { agent: Agent; tracer: Tracer | undefined },
  origin: string,
  { method, path, template, headers, body, signal }: ForwardedRequest,
): Promise<Dispatcher.ResponseData> {
  return inClientSpan(tracer, { method, origin, path, template }, () => {
    const traceparent = currentTraceparent()
    const traced = traceparent === undefined ? headers : { ...headers, traceparent }
    return agent.request({ origin, method, path, headers: traced, signal, body: body?.open() ?? null })
  })
}

/** Once more, and only where a second try cannot act twice. */
function mayTryAgain(error: unknown, { method, body, signal }: ForwardedRequest): boolean {
  if (signal.aborted || body?.isTouched()) return false
  const code = codeOf(error)
  return neverSent.has(code) || (broken.has(code) && idempotent.has(method))
}

function unavailable(service: ServiceName, cause?: unknown): Error {
  const problem = common.service_unavailable({ service })
  problem.cause = cause
  return problem
}

function codeOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
}
