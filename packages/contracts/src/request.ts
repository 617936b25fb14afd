import type { z } from 'zod'
import type { BodyOf, ParamsOf, Route } from './route.ts'

/** The parts of a call by contract, as a client gives them; those that the route does not have may be left out. */
export interface CallInput<R extends Route> {
  readonly params?: ParamsOf<R>
  readonly query?: Partial<z.input<R['query']>>
  readonly body?: z.input<R['body']> | BodyOf<R>
  readonly signal?: AbortSignal
}

/** The path and query of a call. Every value is escaped, so that an id can never reach into another path. */
export function pathOf<R extends Route>(route: R, input: Pick<CallInput<R>, 'params' | 'query'>): string {
  const params = (input.params ?? {}) as Record<string, string>
  const path = route.path.replaceAll(/:(\w+)/g, (_whole, name: string) =>
    encodeURIComponent(params[name] ?? ''),
  )
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(input.query ?? {})) {
    if (value !== undefined) query.set(name, String(value))
  }
  return query.size === 0 ? path : `${path}?${query}`
}

/**
 * Reads the JSON of a good answer by the route's contract.
 * @throws ZodError when it does not fit, which means that client and server are of different releases.
 */
export function readAnswer<R extends Route>(route: R, json: unknown): unknown {
  const envelope = (json ?? {}) as { data?: unknown; page?: { nextCursor: string | null } }
  switch (route.answer.kind) {
    case 'none':
      return undefined
    case 'item':
      return route.answer.schema.parse(envelope.data)
    case 'list': {
      const { schema } = route.answer
      const items = Array.isArray(envelope.data) ? envelope.data : []
      return { items: items.map((one) => schema.parse(one)), nextCursor: envelope.page?.nextCursor ?? null }
    }
    case 'bytes':
      throw new Error(`route ${route.name} answers bytes, not JSON`)
  }
}
