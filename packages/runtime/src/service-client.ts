import type { BodyOf, ParamsOf, QueryOf, ResultOf, Route } from '@cloudphone/contracts/route'
import { Problem } from '@cloudphone/contracts/route'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { currentTraceparent } from '@cloudphone/observe/trace'
import type { Registry } from '@cloudphone/registry/registry'
import { Agent, type Dispatcher } from 'undici'
import type { z } from 'zod'
import { common, ProblemError } from './problem.ts'
import type { ServiceTokens } from './tokens.ts'

/** The parts of a request; those that the route does not have may be left out. */
export interface CallInput<R extends Route> {
  readonly params?: ParamsOf<R>
  readonly query?: Partial<z.input<R['query']>>
  readonly body?: z.input<R['body']> | BodyOf<R> | QueryOf<R>
  readonly signal?: AbortSignal
  /** Default 10,000 ms. */
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
    const address = await addressOf(route.service)
    const timeout = AbortSignal.timeout(input.timeoutMs ?? 10_000)
    const traceparent = currentTraceparent()
    const headers: Record<string, string> = {
      authorization: `Bearer ${await options.serviceTokens.sign(options.self, route.service)}`,
      ...(input.body !== undefined && { 'content-type': 'application/json' }),
      ...(traceparent !== undefined && { traceparent }),
    }
    try {
      return await agent.request({
        origin: address,
        path: pathOf(route, input),
        method: route.method,
        headers,
        body: input.body === undefined ? null : JSON.stringify(input.body),
        signal: input.signal === undefined ? timeout : AbortSignal.any([timeout, input.signal]),
      })
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
      return resultOf(route, text)
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

/** The path and query of a call. */
export function pathOf<R extends Route>(route: R, input: Pick<CallInput<R>, 'params' | 'query'>): string {
  const params = (input.params ?? {}) as Record<string, string>
  const path = route.path.replaceAll(/:(\w+)/g, (_whole, name: string) =>
    encodeURIComponent(params[name] ?? ''),
  )
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(input.query ?? {}))
    if (value !== undefined) query.set(name, String(value))
  return query.size === 0 ? path : `${path}?${query}`
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

function resultOf<R extends Route>(route: R, text: string): ResultOf<R> {
  if (route.answer.kind === 'none') return undefined as ResultOf<R>
  const envelope = safeJson(text) as { data?: unknown; page?: { nextCursor: string | null } } | undefined
  if (route.answer.kind === 'list') {
    const items = (envelope?.data ?? []) as unknown[]
    const { schema } = route.answer
    return {
      items: items.map((one) => schema.parse(one)),
      nextCursor: envelope?.page?.nextCursor ?? null,
    } as ResultOf<R>
  }
  if (route.answer.kind === 'item') return route.answer.schema.parse(envelope?.data) as ResultOf<R>
  throw new Error(`route ${route.name} answers bytes: use stream()`)
}

function safeJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Not JSON: the caller of this function says so in its own words.
    return undefined
  }
}
