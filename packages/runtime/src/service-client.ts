import { type CallInput as ContractInput, pathOf, readAnswer } from '@cloudphone/contracts/request'
import { Problem, type ResultOf, type Route } from '@cloudphone/contracts/route'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { currentTraceparent, type Tracer } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { Agent, type Dispatcher } from 'undici'
import { inClientSpan } from './client-span.ts'
import { deadlineHeader, deadlineLeftMs } from './deadline.ts'
import { common, ProblemError } from './problem.ts'
import { currentScope } from './request-scope.ts'
import type { ServiceTokens } from './tokens.ts'

/** A call of another service. */
export interface CallInput<R extends Route> extends ContractInput<R> {
  /** Default 10,000 ms. Never longer than what is left of the deadline under which it is called. */
  readonly timeoutMs?: number
}

/** Calls other services by contract. */
export interface ServiceClient {
  /**
   * One call of a `service` route. Resolves with the parsed answer.
   * @throws ProblemError as the other service answered it; `service_unavailable` (retryable) when none answers.
   */
  call<R extends Route>(route: R, input?: CallInput<R>): Promise<ResultOf<R>>
  /** The same for a `bytes` route: the stream must be read to its end or destroyed. */
  stream<R extends Route>(route: R, input?: CallInput<R>): Promise<Dispatcher.ResponseData['body']>
  close(): Promise<void>
}

/** Opens the client of one service; it keeps connections alive and takes the registry's addresses in turn. */
export function openServiceClient(options: {
  self: ServiceName
  registry: Registry
  serviceTokens: ServiceTokens
  /** Undefined: no call becomes a span. */
  tracer?: Tracer | undefined
}): ServiceClient {
  const agent = new Agent({ connections: 32, keepAliveTimeout: 30_000, connect: { timeout: 2_000 } })
  let turn = 0

  const addressOf = async (service: ServiceName): Promise<string> => {
    const addresses = await options.registry.lookup(service)
    const address = addresses[turn++ % Math.max(addresses.length, 1)]
    if (address === undefined) throw common.service_unavailable({ service: services[service].registryName })
    return address
  }

  const send = async <R extends Route>(route: R, input: CallInput<R>): Promise<Dispatcher.ResponseData> => {
    const { method, path: template } = route
    const origin = await addressOf(route.service)
    const path = pathOf(route, input)
    const deadlineMs = deadlineLeftMs(performance.now())
    if (deadlineMs === 0) throw common.deadline_exceeded({ waitedMs: 0 })
    const waitMs = Math.min(input.timeoutMs ?? 10_000, deadlineMs ?? Number.POSITIVE_INFINITY)
    const timeout = AbortSignal.timeout(waitMs)
    const authorization = `Bearer ${await options.serviceTokens.sign(options.self, route.service)}`
    const request = (): Promise<Dispatcher.ResponseData> => {
      const traceparent = currentTraceparent()
      const requestId = currentScope()?.requestId
      const headers: Record<string, string> = {
        authorization,
        [deadlineHeader]: String(waitMs),
        ...(input.body !== undefined && { 'content-type': 'application/json' }),
        ...(traceparent !== undefined && { traceparent }),
        ...(requestId != null && { 'x-request-id': requestId }),
      }
      return agent.request({
        ...{ origin, path, method, headers },
        body: input.body === undefined ? null : JSON.stringify(input.body),
        signal: input.signal === undefined ? timeout : AbortSignal.any([timeout, input.signal]),
      })
    }
    try {
      return await inClientSpan(options.tracer, { method, origin, path, template }, request)
    } catch (error) {
      throw unavailable(route.service, error)
    }
  }

  return {
    call: async (route, input = {}) => {
      const response = await send(route, input)
      const text = await response.body
        .text()
        .catch((error: unknown) => Promise.reject(unavailable(route.service, error)))
      if (response.statusCode >= 400) throw problemOf(route.service, response.statusCode, text)
      return readAnswer(route, safeJson(text)) as ResultOf<typeof route>
    },
    stream: async (route, input = {}) => {
      const response = await send(route, input)
      if (response.statusCode >= 400)
        throw problemOf(route.service, response.statusCode, await response.body.text())
      return response.body
    },
    close: () => agent.close(),
  }
}

function unavailable(service: ServiceName, cause: unknown): ProblemError {
  const detail = `The ${services[service].registryName} does not answer now; try again.`
  return new ProblemError({ status: 503, code: 'service_unavailable', detail, cause })
}

function problemOf(service: ServiceName, status: number, text: string): ProblemError {
  const parsed = Problem.safeParse(safeJson(text))
  if (!parsed.success) return unavailable(service, new Error(`HTTP ${status}: ${text.slice(0, 200)}`))
  const {
    code,
    detail,
    errors,
    type: _type,
    title: _title,
    requestId: _id,
    success: _success,
    ...members
  } = parsed.data
  return new ProblemError({ status, code, detail, members, ...(errors !== undefined && { errors }) })
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Not JSON: the caller of this function says so in its own words.
    return undefined
  }
}
