/* Terminology:
 * - operation: one method of one path of the OpenAPI document that the platform serves
 * - mutation: what is done to a request that would fit the document
 */
import { Agent, request } from 'node:http'
import fc from 'fast-check'

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** The part of JSON Schema that our documents use. */
interface Schema {
  readonly type?: string
  readonly format?: string
  readonly enum?: readonly Json[]
  readonly anyOf?: readonly Schema[]
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly items?: Schema
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
}

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query' | 'header'
  readonly required?: boolean
  readonly schema: Schema
}

interface Described {
  readonly operationId: string
  readonly security?: readonly object[]
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> }
}

/** One method of one path. */
export interface Operation {
  readonly id: string
  readonly method: string
  readonly path: string
  readonly parameters: readonly Parameter[]
  readonly json: Schema | undefined
  readonly upload: boolean
  /** True when it needs somebody who is signed in. */
  readonly secured: boolean
}

/** A request as it is sent. */
export interface FuzzRequest {
  readonly operation: string
  readonly as: string
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
}

/** What ids are filled in with, by parameter; of whoever they are. */
export type KnownIds = Readonly<Record<string, readonly string[]>>

/** Every operation of the document that a platform serves. @throws Error when it serves none. */
export async function operationsOf(url: string): Promise<readonly Operation[]> {
  const document = (await (await fetch(`${url}/api/openapi.json`)).json()) as {
    paths: Record<string, Record<string, Described>>
  }
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => ({
      id: described.operationId,
      method: method.toUpperCase(),
      path,
      parameters: described.parameters ?? [],
      json: described.requestBody?.content['application/json']?.schema,
      upload: described.requestBody?.content['multipart/form-data'] !== undefined,
      secured: (described.security ?? []).length > 0,
    })),
  )
  if (operations.length === 0) throw new Error(`${url} serves an OpenAPI document without operations`)
  return operations
}

/** Own keys, `__proto__` among them, as only JSON.parse makes them. */
const fromText = (text: string): Json => JSON.parse(text)
const deep = (levels: number): Json => fromText(`${'['.repeat(levels)}${']'.repeat(levels)}`)

const poisons: readonly Json[] = [
  ...[
    null,
    true,
    false,
    0,
    -1,
    0.5,
    1e308,
    -1e308,
    2 ** 31,
    2 ** 53,
    '',
    ' ',
    '0',
    'null',
    '\u0000',
    'a\u0000b',
  ],
  ...[
    '\u202Egnp.exe',
    '\uD800',
    '\uDFFFx',
    'e\u0301'.repeat(40),
    '\u{1F4F1}'.repeat(80),
    '\r\nSet-Cookie: a=b',
  ],
  ...["'; drop table users; --", '$(reboot)', '{{7*7}}', '#{7*7}', '../../etc/passwd', '%00', '*', '{}'],
  ...['x'.repeat(300), 'x'.repeat(100_000), '1'.repeat(400), 'NaN', '1e999', '0x10', '9999-99-99T99:99:99Z'],
  ...['+275760-09-13T00:00:00.000Z', '0000-01-01T00:00:00.000Z', '00000000-0000-0000-0000-000000000000'],
  ...[[], {}, [null], [[[]]], { length: -1 }, { toString: 'x' }, { $gt: '' }, deep(200)],
  ...[fromText('{"__proto__":{"role":"admin"}}'), fromText('{"constructor":{"prototype":{"role":"admin"}}}')],
  Array.from({ length: 2000 }, () => 0),
]

/** Fields that somebody would like to set for himself. */
const extras = fc.tuple(
  fc.constantFrom(
    ...[
      'role',
      'tenantId',
      'id',
      'userId',
      'status',
      'version',
      'ownerId',
      'isAdmin',
      'permissions',
      'scopes',
    ],
    ...[
      'createdAt',
      'constructor',
      'prototype',
      'toString',
      'hasOwnProperty',
      '',
      '\u0000',
      'x'.repeat(1000),
    ],
  ),
  fc.constantFrom<Json>('admin', null, 1, true, [], {}, '00000000-0000-0000-0000-000000000000'),
)

/** Values that fit a schema, as far as the schema says it. */
function fitting(schema: Schema, name: string, known: KnownIds): fc.Arbitrary<Json> {
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((one) => fitting(one, name, known)))
  switch (schema.type) {
    case 'object': {
      const fields = Object.entries(schema.properties ?? {}).map(
        ([key, of]) => [key, fitting(of, key, known)] as const,
      )
      return fc.record(Object.fromEntries(fields), { requiredKeys: [...(schema.required ?? [])] })
    }
    case 'array':
      return fc.array(fitting(schema.items ?? {}, name, known), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.min(schema.maxItems ?? 5, 5),
      })
    case 'integer':
    case 'number':
      return numbers(schema, name)
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    case 'string':
      return strings(schema, name, known)
    default:
      return fc.constantFrom(...poisons)
  }
}

function numbers({ minimum = -1000, maximum = 1000 }: Schema, name: string): fc.Arbitrary<Json> {
  // To wait is not to hang, but a fuzz has no time for it.
  if (name === 'wait') return fc.constantFrom(0, 1)
  return fc.oneof(fc.constantFrom(minimum, maximum), fc.integer({ min: minimum, max: maximum }))
}

function strings(schema: Schema, name: string, known: KnownIds): fc.Arbitrary<Json> {
  const ids = known[name]
  if (ids !== undefined) return fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...ids) }, fc.uuid())
  if (name === 'sagaId') return fc.uuid().map((id) => `device_creation-${id}`)
  if (schema.format === 'uuid') return fc.uuid()
  if (schema.format === 'email') return fc.uuid().map((id) => `${id}@fuzz.test`)
  if (schema.format === 'date-time') {
    const noInvalidDate = { min: new Date('1000-01-01T00:00:00Z'), max: new Date('9999-12-31T23:59:59Z') }
    return fc.date({ ...noInvalidDate, noInvalidDate: true }).map((date) => date.toISOString())
  }
  const { minLength = 0, maxLength = 40 } = schema
  return fc.string({ minLength, maxLength: Math.max(minLength, Math.min(maxLength, 60)), unit: 'grapheme' })
}

/** How the text of a body is spoilt. */
const spoilt: readonly ((text: string) => string)[] = [
  (text) => text.slice(0, -1),
  (text) => `${text}${text}`,
  (text) => `\uFEFF${text}`,
  () => '',
  () => 'null',
  () => '[]',
  () => '"x"',
  () => '1e999',
  (text) => text.replace('{', '{"__proto__":{"role":"admin"},'),
  (text) => text.replace('{', '{"constructor":{"prototype":{"role":"admin"}},'),
  () => `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
  () => `${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}`,
  () => `{"name":"${'x'.repeat(1_100_000)}"}`,
]

function bodies({ json, upload }: Operation, known: KnownIds): fc.Arbitrary<string | undefined> {
  if (upload) return uploads
  if (json === undefined) {
    return fc.oneof(
      { weight: 4, arbitrary: fc.constant(undefined) },
      fc.constantFrom(...poisons).map((poison) => JSON.stringify(poison)),
    )
  }
  const good = fitting(json, '', known)
  const mutated = fc.tuple(good, fc.nat(), fc.constantFrom(...poisons)).map(([body, nth, poison]) => {
    const keys = Object.keys(json.properties ?? {})
    const key = keys[nth % Math.max(keys.length, 1)]
    return key === undefined ? poison : { ...(body as object), [key]: poison }
  })
  const lacking = fc.tuple(good, fc.nat()).map(([body, nth]) => {
    const entries = Object.entries(body as object)
    return Object.fromEntries(entries.filter((_entry, index) => index !== nth % Math.max(entries.length, 1)))
  })
  const more = fc.tuple(good, extras).map(([body, [key, value]]) => ({ ...(body as object), [key]: value }))
  return fc.oneof(
    { weight: 3, arbitrary: good.map((body) => JSON.stringify(body)) },
    { weight: 5, arbitrary: mutated.map((body) => JSON.stringify(body)) },
    { weight: 1, arbitrary: lacking.map((body) => JSON.stringify(body)) },
    { weight: 2, arbitrary: more.map((body) => JSON.stringify(body)) },
    { weight: 1, arbitrary: fc.constantFrom(...poisons).map((body) => JSON.stringify(body)) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(good, fc.constantFrom(...spoilt))
        .map(([body, spoil]) => spoil(JSON.stringify(body))),
    },
  )
}

const boundary = 'fuzz-boundary'
const part = (disposition: string, content: string) =>
  `--${boundary}\r\nContent-Disposition: ${disposition}\r\n\r\n${content}\r\n`

const uploads = fc
  .tuple(
    fc.constantFrom(
      ...[
        'form-data; name="file"; filename="a.apk"',
        'form-data; name="other"; filename="a.apk"',
        'form-data',
      ],
      ...[
        'form-data; name="file"',
        'form-data; name="__proto__"; filename="../../a"',
        'form-data; name="file"; filename="\u0000"',
      ],
    ),
    fc.constantFrom(
      '',
      'PK\u0003\u0004',
      'x'.repeat(10_000),
      `PK\u0005\u0006${'\u0000'.repeat(18)}`,
      `PK\u0005\u0006${'\u00ff'.repeat(18)}`,
    ),
    fc.constantFrom(`--${boundary}--\r\n`, '', `--${boundary}`, `--${boundary}\r\n\r\n`),
  )
  .map(([disposition, content, end]) => `${part(disposition, content)}${end}`)

/** Segments and values that are no id of anything. */
const odd = fc.oneof(
  fc.constantFrom(
    ...['%00', '%zz', '%ff', '..%2f..%2finternal', '.', '%2e%2e', '%20', '-1', '1;drop', 'undefined', '*'],
  ),
  fc.constantFrom(
    'x'.repeat(150),
    'x'.repeat(300),
    '__proto__',
    'constructor',
    '%E2%80%AE',
    '%F0%9F%93%B1',
    "'%20or%201=1",
  ),
  fc.constantFrom(...poisons).map((poison) => encode(poison)),
  fc.string({ maxLength: 30, unit: 'binary' }).map(encode),
)

function encode(value: Json): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return encodeURIComponent(text.slice(0, 600).toWellFormed())
}

function paths({ path, parameters }: Operation, known: KnownIds): fc.Arbitrary<string> {
  const named = parameters.filter((one) => one.in === 'path')
  const values = fc.tuple(
    ...named.map(({ name, schema }) =>
      fc.oneof(
        { weight: 6, arbitrary: fitting(schema, name, known).map(encode) },
        { weight: 1, arbitrary: odd },
      ),
    ),
  )
  return values.map((given) =>
    named.reduce((whole, { name }, index) => whole.replace(`{${name}}`, () => given[index] ?? ''), path),
  )
}

function queries({ parameters }: Operation, known: KnownIds): fc.Arbitrary<string> {
  const pairs = parameters
    .filter((one) => one.in === 'query')
    .map(({ name, schema }) =>
      fc.oneof(
        { weight: 3, arbitrary: fc.constant<readonly string[]>([]) },
        { weight: 3, arbitrary: fitting(schema, name, known).map((value) => [`${name}=${encode(value)}`]) },
        {
          weight: 2,
          arbitrary: odd
            .filter((one) => name !== 'wait' || !/^\d+$/.test(one))
            .map((value) => [`${name}=${value}`]),
        },
        { weight: 1, arbitrary: fc.constant([`${name}=1`, `${name}=2`]) },
      ),
    )
  const strange = fc.constantFrom<readonly string[]>(
    [],
    [],
    [],
    [],
    ['__proto__=x'],
    ['tenantId=x'],
    ['a[b]=c'],
    ['&&='],
  )
  return fc.tuple(strange, ...pairs).map((parts) => {
    const all = parts.flat()
    return all.length === 0 ? '' : `?${all.join('&')}`
  })
}

/** Headers that anybody can send, one at a time. */
const strangeHeaders: readonly Readonly<Record<string, string>>[] = [
  ...[{}, {}, {}, {}, {}, {}, {}, {}],
  ...[
    { 'content-type': 'text/plain' },
    { 'content-type': 'application/json; charset=utf-16' },
    { 'content-type': '' },
  ],
  ...[{ 'content-type': 'application/x-www-form-urlencoded' }, { 'content-type': 'multipart/form-data' }],
  ...[{ accept: 'application/xml' }, { 'x-request-id': 'x'.repeat(500) }, { 'x-request-id': '\u00ff\u00fe' }],
  ...[
    { traceparent: '00-0-0-0' },
    { traceparent: 'x'.repeat(2000) },
    { tracestate: '=,=,=' },
    { baggage: '=%zz' },
  ],
  ...[
    { 'idempotency-key': 'k' },
    { 'idempotency-key': '' },
    { 'idempotency-key': '\u00e9\u00ff' },
    { 'idempotency-key': 'k'.repeat(300) },
  ],
  ...[
    { 'x-deadline-ms': '-1' },
    { 'x-deadline-ms': 'NaN' },
    { 'x-forwarded-for': "'; --" },
    { host: 'users.internal' },
  ],
  ...[
    { 'x-user-id': 'root' },
    { 'x-tenant-id': 'x' },
    { 'x-http-method-override': 'DELETE' },
    { 'content-encoding': 'gzip' },
  ],
  ...[
    { expect: '200-maybe' },
    { range: 'bytes=9-1' },
    { 'if-none-match': '*' },
    { cookie: '='.repeat(1000) },
  ],
]

/** Requests of one operation: some that fit its description, most that do not. */
export function requestsOf(
  operation: Operation,
  known: KnownIds,
  who: readonly string[],
): fc.Arbitrary<FuzzRequest> {
  const { id, method } = operation
  return fc
    .record({
      as: fc.constantFrom(...who),
      path: paths(operation, known),
      query: queries(operation, known),
      body: method === 'GET' ? fc.constant(undefined) : bodies(operation, known),
      more: fc.constantFrom(...strangeHeaders),
    })
    .map(({ as, path, query, body, more }) => ({
      ...{ operation: id, as, method, path: `${path}${query}`, body },
      headers: {
        ...(body !== undefined && {
          'content-type': operation.upload ? `multipart/form-data; boundary=${boundary}` : 'application/json',
        }),
        ...more,
      },
    }))
}

/** What came back, as text. */
export interface FuzzAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/** However slow the machine: who has not answered by then hangs. */
const deadlineMs = 60_000

/** As commands and followed logs answer. */
const isLive = /^(application\/x-ndjson|text\/plain)/

/** Sends requests as they are; `fetch` would mend them. */
export function openSender(url: string) {
  const { hostname, port } = new URL(url)
  const agent = new Agent({ keepAlive: true, maxSockets: 8 })
  return {
    /** @throws Error when there is no answer in time, or none at all. */
    send: ({ method, path, headers, body }: FuzzRequest, token: string | undefined): Promise<FuzzAnswer> =>
      new Promise((resolve, reject) => {
        const content = body === undefined ? undefined : Buffer.from(body, 'utf8')
        const asked = request({
          ...{ agent, hostname, port, method, path, timeout: deadlineMs },
          headers: {
            ...(content !== undefined && { 'content-length': content.length }),
            ...(token !== undefined && { authorization: `Bearer ${token}` }),
            ...headers,
          },
        })
        asked.once('timeout', () => asked.destroy(new Error(`no answer within ${deadlineMs} ms`)))
        asked.once('error', reject)
        asked.once('response', (response) => {
          const { statusCode: status = 0, headers } = response
          // What comes as things happen may never end: its head is its answer.
          if (status < 400 && isLive.test(headers['content-type'] ?? '')) {
            response.destroy()
            return resolve({ status, headers, text: '' })
          }
          const parts: Buffer[] = []
          response.on('data', (data: Buffer) => parts.push(data))
          response.once('error', reject)
          response.once('end', () =>
            resolve({ status, headers, text: Buffer.concat(parts).toString('latin1') }),
          )
        })
        asked.end(content)
      }),
    close: () => agent.destroy(),
  }
}

/** Our inside: stacks, paths, SQL and the words of PostgreSQL. */
const inside =
  /node_modules|\.ts:\d|\n\s+at |\bselect\b.* from |insert into|violates|ECONN|invalid byte sequence|\/(packages|services)\/[\w-]+\/src/

/** What is wrong with an answer, or undefined. */
export function wrongWith({ status, headers, text }: FuzzAnswer): string | undefined {
  if (status < 400) return undefined
  if (inside.test(text)) return 'shows our inside'
  if (!String(headers['content-type']).startsWith('application/problem+json')) return 'no problem document'
  const problem = JSON.parse(text)
  if (problem.status !== status) return 'another status in the problem'
  if (typeof problem.code !== 'string' || typeof problem.detail !== 'string')
    return 'a problem without code or detail'
  if (problem.type !== `urn:cloudphone:problem:${problem.code}`) return 'a problem of another type'
  if (problem.requestId !== headers['x-request-id']) return 'another request id in the problem'
  return status >= 500 ? `a failure: ${problem.code}` : undefined
}
