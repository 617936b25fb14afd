/* Terminology:
 * - route: one HTTP operation, declared once; servers bind a handler to it, clients call it, OpenAPI is generated from it
 * - problem: an error as application/problem+json (RFC 9457)
 * - page: one part of a list, with the cursor of the next one (keyset, never offset)
 * - verb: what a change is called in the audit log: `device.create`
 */
import { z } from 'zod'
import type { Permission } from './access.ts'
import type { ServiceName } from './services.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

/**
 * Who may call. `public`: anybody. `user`: a verified caller with the permission (ownership is the service's own check).
 * `service`: another service of this platform by its service token; never reachable through the gateway.
 */
export type Access =
  | { readonly kind: 'public' }
  | { readonly kind: 'user'; readonly permission: Permission | 'self' }
  | { readonly kind: 'service' }

/** How the answer looks: an item, a list with cursor, nothing, or bytes of a media type; live ones come as things happen. */
export type Answer =
  | { readonly kind: 'item'; readonly schema: z.ZodType; readonly status: 200 | 201 | 202 }
  | { readonly kind: 'list'; readonly schema: z.ZodType }
  | { readonly kind: 'none' }
  | { readonly kind: 'bytes'; readonly mediaType: string; readonly isLive?: true }

/** What a change is called in the audit log: the thing, and what was done to it. */
export type AuditVerb = `${string}.${string}`

/** The verb under which a route's change is on record; or why what it does is none. */
export type Audited = AuditVerb | { readonly none: string }

/** What a request may carry: JSON, a multipart form with one file, or nothing. */
export interface Route<
  Params extends z.ZodType = z.ZodType,
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
  Reply extends Answer = Answer,
> {
  readonly name: string
  readonly service: ServiceName
  readonly method: Method
  /** Fastify's notation: `/api/devices/:deviceId`. */
  readonly path: string
  readonly summary: string
  readonly access: Access
  readonly params: Params
  readonly query: Query
  readonly body: Body
  /** `file`: the body is multipart/form-data whose field `file` is streamed to the handler; `body` describes the other fields. */
  readonly upload?: 'file'
  readonly answer: Reply
  /** Of every route that outsiders may call and that changes something; see `mustBeAudited`. */
  readonly audit?: Audited
  /** Codes of problems beyond those every route may answer. */
  readonly problems?: readonly string[]
}

export type ParamsOf<R extends Route> = z.output<R['params']>
export type QueryOf<R extends Route> = z.output<R['query']>
export type BodyOf<R extends Route> = z.output<R['body']>
export type ResultOf<R extends Route> = R['answer'] extends {
  kind: 'item'
  schema: infer S extends z.ZodType
}
  ? z.output<S>
  : R['answer'] extends { kind: 'list'; schema: infer S extends z.ZodType }
    ? PageOf<z.output<S>>
    : R['answer'] extends { kind: 'bytes' }
      ? Uint8Array
      : undefined

/** A part of a list. `nextCursor` is null on the last one. */
export interface PageOf<Item> {
  readonly items: readonly Item[]
  readonly nextCursor: string | null
}

const nothing = z.strictObject({})
type Nothing = typeof nothing

/** Declares a route. Unknown fields in params, query or body are refused, so the schemas must be strict objects. */
export function route<
  Reply extends Answer,
  Params extends z.ZodType = Nothing,
  Query extends z.ZodType = Nothing,
  Body extends z.ZodType = Nothing,
>(
  definition: Omit<Route<Params, Query, Body, Reply>, 'params' | 'query' | 'body'> & {
    params?: Params
    query?: Query
    body?: Body
  },
): Route<Params, Query, Body, Reply> {
  const { params = nothing, query = nothing, body = nothing, ...rest } = definition
  return { ...rest, params: params as Params, query: query as Query, body: body as Body }
}

/** True for a route that must say what its change is called in the audit log: one that changes, and that outsiders call. */
export function mustBeAudited({ method, access }: Pick<Route, 'method' | 'access'>): boolean {
  return method !== 'GET' && access.kind !== 'service'
}

export const item = <S extends z.ZodType>(schema: S, status: 200 | 201 | 202 = 200) =>
  ({ kind: 'item', schema, status }) as const
export const list = <S extends z.ZodType>(schema: S) => ({ kind: 'list', schema }) as const
export const none = { kind: 'none' } as const
export const bytes = (mediaType: string) => ({ kind: 'bytes', mediaType }) as const
/** Bytes that come as things happen: the head at once, and then perhaps nothing for long. */
export const live = (mediaType: string) => ({ kind: 'bytes', mediaType, isLive: true }) as const

/** The query of every list: how many, and from where on. */
export const PageQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(200).default(50),
  cursor: z.string().max(500).optional(),
})

/** An error as every service answers it: RFC 9457 with `code`, `requestId`, `errors` and `success: false`. */
export const Problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  code: z.string(),
  requestId: z.string(),
  success: z.literal(false),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
})
export type Problem = z.infer<typeof Problem>
