import type { Route } from '@cloudphone/contracts/route'
import { Problem } from '@cloudphone/contracts/route'
import { z } from 'zod'

type Json = Record<string, unknown>

/** An OpenAPI 3.1 document. @see https://spec.openapis.org/oas/v3.1.0 */
export interface OpenApiDocument {
  readonly openapi: '3.1.0'
  readonly info: { readonly title: string; readonly version: string; readonly description: string }
  readonly tags: readonly { readonly name: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: Json
}

interface Operation extends Json {
  readonly operationId: string
  readonly responses: Json
}

/** Problems that any route may answer, by status; `signedIn` only where a caller is needed. */
const everywhere: readonly { status: number; code: string; signedIn?: true; withBody?: true }[] = [
  { status: 400, code: 'invalid_request' },
  { status: 401, code: 'unauthenticated', signedIn: true },
  { status: 403, code: 'forbidden', signedIn: true },
  { status: 408, code: 'body_too_slow', withBody: true },
  { status: 413, code: 'body_too_large', withBody: true },
  { status: 414, code: 'url_too_long' },
  { status: 415, code: 'unsupported_media_type', withBody: true },
  { status: 429, code: 'rate_limited' },
  { status: 431, code: 'headers_too_large' },
  { status: 503, code: 'service_unavailable' },
  { status: 504, code: 'deadline_exceeded' },
]

/** Of answers, each described once under `components`. */
const headers = {
  'X-Request-Id': ['Names this request in our logs; the one you sent, if it was fit.', 'string'],
  'RateLimit-Policy': ['The limits in force, such as `10;w=1, 100;w=10`.', 'string'],
  'RateLimit-Limit': ['Requests that the limit nearest to its end allows.', 'integer'],
  'RateLimit-Remaining': ['How many of them are left.', 'integer'],
  'RateLimit-Reset': ['Seconds until that limit begins anew.', 'integer'],
  'Retry-After': ['Seconds after which it is worth trying again.', 'integer'],
} as const
type HeaderName = keyof typeof headers

const onEveryAnswer = [
  ...(['X-Request-Id', 'RateLimit-Policy', 'RateLimit-Limit'] as const),
  ...(['RateLimit-Remaining', 'RateLimit-Reset'] as const),
]
const retryLater: ReadonlySet<number> = new Set([429, 503])

function headersNamed(names: readonly HeaderName[]): Json {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))
}

/** Describes routes as OpenAPI. Schemas are those of the wire: what a caller sends, and what a parser of ours would take. */
export function openApiOf(routes: readonly Route[], { version }: { version: string }): OpenApiDocument {
  const paths: Record<string, Record<string, Operation>> = {}
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Cloudphone',
      version,
      description:
        'Android cloud phones. Sign in for an access token, or make an API key; send either as a Bearer token. ' +
        'Every POST takes an Idempotency-Key; work that takes time answers 202 with a saga to wait for.',
    },
    tags: [...new Set(routes.map(tagOf))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        accessToken: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' },
        apiKey: {
          type: 'apiKey',
          in: 'header',
          name: 'X-API-Key',
          description: 'A key that begins with cpk_.',
        },
      },
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, [description, type]]) => [
          name,
          { description, schema: { type } },
        ]),
      ),
      schemas: { Problem: schemaOf(Problem) },
    },
  }
}

function operationOf(route: Route): Operation {
  const isProtected = route.access.kind === 'user'
  const permission = route.access.kind === 'user' ? route.access.permission : 'self'
  return {
    operationId: route.name,
    tags: [tagOf(route)],
    summary: route.summary,
    ...(permission !== 'self' && { description: `Needs the permission \`${permission}\`.` }),
    security: isProtected ? [{ accessToken: [] }, { apiKey: [] }] : [],
    parameters: parametersOf(route),
    ...bodyOf(route),
    responses: responsesOf(route, isProtected),
  }
}

function responsesOf(route: Route, isProtected: boolean): Json {
  const success = Object.entries(successOf(route)).map(([status, response]) => [
    status,
    { ...(response as Json), headers: headersNamed(onEveryAnswer) },
  ])
  return { ...Object.fromEntries(success), ...problemsOf(route, isProtected) }
}

function parametersOf(route: Route): Json[] {
  const path = propertiesOf(route.params).map(({ name, schema }) => ({
    name,
    in: 'path',
    required: true,
    schema,
  }))
  const query = propertiesOf(route.query).map(({ name, schema, required }) => ({
    ...{ name, in: 'query', required, schema },
    ...(typeof schema.description === 'string' && { description: schema.description }),
  }))
  const key = {
    name: 'Idempotency-Key',
    in: 'header',
    required: false,
    schema: { type: 'string', maxLength: 255 },
  }
  return [...path, ...query, ...(route.method === 'POST' && route.upload === undefined ? [key] : [])]
}

function bodyOf(route: Route): Json {
  const schema = schemaOf(route.body)
  const properties = propertiesOf(route.body)
  if (route.upload !== undefined) {
    const file = { type: 'string', format: 'binary' }
    const form = {
      type: 'object',
      required: [route.upload],
      properties: {
        ...Object.fromEntries(properties.map(({ name, schema: one }) => [name, one])),
        [route.upload]: file,
      },
    }
    return { requestBody: { required: true, content: { 'multipart/form-data': { schema: form } } } }
  }
  if (properties.length === 0) return {}
  const required = properties.some((property) => property.required)
  return { requestBody: { required, content: { 'application/json': { schema } } } }
}

function successOf({ answer }: Route): Json {
  const success = { type: 'boolean', const: true }
  switch (answer.kind) {
    case 'none':
      return { 204: { description: 'Done.' } }
    case 'bytes':
      return { 200: { description: 'The bytes.', content: { [answer.mediaType]: {} } } }
    case 'item': {
      const schema = {
        type: 'object',
        required: ['success', 'data'],
        properties: { success, data: schemaOf(answer.schema) },
      }
      const description = { 200: 'Here it is.', 201: 'Made.', 202: 'Accepted; the saga tells how it goes.' }
      return {
        [answer.status]: {
          description: description[answer.status],
          content: { 'application/json': { schema } },
        },
      }
    }
    case 'list': {
      const page = {
        type: 'object',
        required: ['nextCursor'],
        properties: { nextCursor: { type: ['string', 'null'] } },
      }
      const schema = {
        type: 'object',
        required: ['success', 'data', 'page'],
        properties: { success, data: { type: 'array', items: schemaOf(answer.schema) }, page },
      }
      return { 200: { description: 'A part of the list.', content: { 'application/json': { schema } } } }
    }
  }
}

function problemsOf(route: Route, isProtected: boolean): Json {
  const content = { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } }
  const common = everywhere
    .filter(({ signedIn }) => isProtected || signedIn === undefined)
    .filter(({ withBody }) => withBody === undefined || route.method !== 'GET')
    .map(({ status, code }) => [
      String(status),
      {
        description: `\`${code}\``,
        headers: headersNamed(retryLater.has(status) ? [...onEveryAnswer, 'Retry-After'] : onEveryAnswer),
        content,
      },
    ])
  // A contract names codes without their status, so they stand together under `default`.
  const own = (route.problems ?? []).map((code) => `\`${code}\``).join(', ')
  return {
    ...Object.fromEntries(common),
    default: { description: own === '' ? 'Any other problem.' : `Also: ${own}.`, content },
  }
}

function propertiesOf(schema: z.ZodType): { name: string; schema: Json; required: boolean }[] {
  const { properties, required } = schemaOf(schema) as {
    properties?: Record<string, Json>
    required?: string[]
  }
  return Object.entries(properties ?? {}).map(([name, one]) => ({
    name,
    schema: one,
    required: required?.includes(name) ?? false,
  }))
}

/** `input`: an answer's schema is what its reader parses, so the wire is the input of both. Dates and ids are text there. */
function schemaOf(schema: z.ZodType): Json {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, {
    target: 'draft-2020-12',
    io: 'input',
    unrepresentable: 'any',
  })
  return rest
}

function tagOf(route: Route): string {
  return route.service === 'gateway' ? 'platform' : route.service
}
