/* Terminology:
 * - case: one request, written down so that it can be sent as it stands, and again
 * - mutation: what is wrong with it
 */
import fc from 'fast-check'
import type { Operation, Parameter, Schema } from './operations.ts'
import { deepValue, edges, fitting, hugeText, oddText, oddTexts, oddValue } from './values.ts'

/** Who asks: those of the first tenant, the founder of another, the platform's own, and nobody. */
export const askers = ['admin', 'member', 'viewer', 'stranger', 'nobody'] as const
export type Asker = (typeof askers)[number]

/** A request, ready to be sent. */
export interface Case {
  readonly operation: Operation
  readonly mutation: Mutation
  readonly asker: Asker
  readonly method: string
  /** With its query, as it goes on the wire. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | undefined
}

/** The part of a case that a mutation makes. */
type Change = Partial<Pick<Case, 'method' | 'path' | 'headers' | 'body'>>
type Make = (operation: Operation, plain: Plain) => fc.Arbitrary<Change>
interface Plain {
  readonly path: string
  readonly body: unknown
}

/** Ids that are known to exist, by the name of the parameter that takes them. */
export type KnownIds = Readonly<Record<string, readonly string[]>>

const json = { 'content-type': 'application/json' }
const uuid = '01890000-0000-7000-8000-000000000000'

const boundary = 'b'
const oddForm: fc.Arbitrary<Change> = fc
  .tuple(
    fc.constantFrom(
      '; boundary=b',
      '; boundary=',
      '; boundary=c',
      '',
      '; boundary="b',
      '; boundary=b; charset=x',
    ),
    fc.constantFrom('\r\n', '\n'),
    fc.constantFrom(
      ...[
        'form-data; name="file"; filename="a.apk"',
        'form-data; name="file"',
        'form-data; name="__proto__"',
      ],
      ...[
        'form-data',
        '',
        'form-data; name="file"; filename="../../a"',
        `form-data; name="${'n'.repeat(500)}"`,
      ],
    ),
    oddText,
    fc.constantFrom(`--${boundary}--`, `--${boundary}`, ''),
  )
  .map(([type, line, disposition, content, end]) => ({
    headers: { 'content-type': `multipart/form-data${type}` },
    body: [`--${boundary}`, `content-disposition: ${disposition}`, '', content, end].join(line),
  }))

/** What is changed about a request that would fit; `undefined` where an operation has no such place. */
const mutations = {
  nothing: () => fc.constant({}),
  'field missing': (operation, { body }) => onField(operation, (name) => fc.constant(without(body, name))),
  'field of another type': (operation, { body }) =>
    onField(operation, (name) => oddValue.map((value) => withField(body, name, value))),
  'field at its edge': (operation, { body }) =>
    onField(operation, (name, schema) =>
      fc.constantFrom(...edges(schema)).map((value) => withField(body, name, value)),
    ),
  'field of odd text': (operation, { body }) =>
    onField(operation, (name) => oddText.map((value) => withField(body, name, value))),
  'field too long': (operation, { body }) =>
    onField(operation, (name) => hugeText.map((value) => withField(body, name, value))),
  'field too deep': (operation, { body }) =>
    onField(operation, (name) => deepValue.map((value) => withField(body, name, value))),
  'field inside a field': (operation, { body }) =>
    onField(operation, (name) =>
      fc
        .dictionary(fc.oneof(oddText, fc.constantFrom('a', 'k')), oddValue, { maxKeys: 40 })
        .map((value) => withField(body, name, value)),
    ),
  'field nobody asked for': (operation, { body }) =>
    hasBody(operation)(
      fc
        .tuple(
          fc.oneof(
            fc.constantFrom(
              'id',
              'tenantId',
              'role',
              'status',
              'isPlatform',
              'version',
              'createdAt',
              'constructor',
            ),
            oddText,
          ),
          oddValue,
        )
        .map(([name, value]) => jsonBody(withField(body, name, value))),
    ),
  'a prototype': (operation, { body }) =>
    hasBody(operation)(
      fc
        .constantFrom(
          '"__proto__":{"role":"admin"}',
          '"constructor":{"prototype":{"role":"admin"}}',
          '"__proto__":null',
        )
        .map((member) => ({ headers: json, body: inserted(body, member) })),
    ),
  'another body': (operation) => hasBody(operation)(oddValue.map(jsonBody)),
  'a body that is no JSON': (operation, { body }) =>
    hasBody(operation)(
      fc
        .tuple(fc.nat(), fc.constantFrom('', '\ufeff', '\u0000', ',', '}', '//', '{"a":1}', 'NaN', '\ud800'))
        .map(([cut, tail]) => {
          const text = JSON.stringify(body ?? {})
          return { headers: json, body: text.slice(0, cut % (text.length + 1)) + tail }
        }),
    ),
  'a body nobody asked for': (operation) =>
    operation.body !== undefined || operation.form !== undefined || operation.method === 'GET'
      ? undefined
      : fc.oneof(oddValue.map(jsonBody), deepValue.map(jsonBody)),
  'another media type': (operation, { body }) =>
    hasBody(operation)(
      fc
        .constantFrom<Record<string, string>>(
          {},
          { 'content-type': '' },
          { 'content-type': 'text/plain' },
          { 'content-type': 'application/xml' },
          { 'content-type': 'application/x-www-form-urlencoded' },
          { 'content-type': 'multipart/form-data' },
          { 'content-type': 'multipart/form-data; boundary=' },
          { 'content-type': 'application/json; charset=utf-16' },
          { 'content-type': 'application/json, application/json' },
          { 'content-type': 'application/vnd.api+json' },
          { 'content-type': `application/${'x'.repeat(4_000)}` },
          { 'content-type': 'application/json', 'content-encoding': 'gzip' },
        )
        .map((headers) => ({ headers, body: JSON.stringify(body ?? {}) })),
    ),
  'a form that is none': ({ form }) => (form === undefined ? undefined : oddForm),
  'an id of nothing': (operation) => onIds(operation, () => fc.constantFrom(uuid, `device_creation-${uuid}`)),
  'an id that is none': (operation) =>
    onIds(operation, () =>
      fc.oneof(
        fc.constantFrom(
          ...oddTexts,
          'a'.repeat(199),
          'a'.repeat(201),
          'a'.repeat(5_000),
          uuid.slice(1),
          `${uuid} `,
        ),
        fc.string({ unit: 'binary', maxLength: 50 }),
      ),
    ),
  'a path that cannot be decoded': (operation) =>
    onPath(operation, () =>
      fc.constantFrom('%', '%zz', '%ff', '%c0%af', '%ed%a0%80', '%00', '%2e%2e', '%2f', ';a=b'),
    ),
  'a query at its edge': (operation, { path }) =>
    onQuery(operation, ({ schema }) => fc.constantFrom(...edges(schema)).map(String), path),
  'a query of odd text': (operation, { path }) => onQuery(operation, () => oddText, path),
  'a query nobody asked for': (_operation, { path }) =>
    fc
      .constantFrom(
        ...[
          'a=1',
          'limit=1&limit=2',
          'limit[]=1',
          '__proto__=1',
          '__proto__[a]=1',
          'constructor.prototype.a=1',
          '&&&=',
        ],
        ...[
          '%',
          '%zz=%zz',
          '%00=%00',
          `a=${'b'.repeat(4_000)}`,
          'cursor=',
          '?',
          'limit=1;cursor=2',
          'a'.repeat(3_000),
        ],
        ...[
          'cursor=eyJhIjoxfQ',
          'cursor=W10',
          'cursor=bnVsbA',
          'cursor=WyIwIiwiMCJd',
          'cursor=%00',
          'x=%ed%a0%80',
        ],
      )
      .map((query) => ({ path: `${path}${path.includes('?') ? '&' : '?'}${query}` })),
  'odd headers': () =>
    fc
      .constantFrom<Record<string, string>>(
        { range: 'bytes=0-0,1-1,999999999999999999999-' },
        { 'if-none-match': '*', 'if-modified-since': 'never' },
        { accept: 'image/x-icon;q=banana' },
        { 'accept-encoding': 'gzip;q=9, \u00ff' },
        { 'x-request-id': "'; drop" },
        { 'x-request-id': 'r'.repeat(3_000) },
        { traceparent: '00-zz-zz-zz', tracestate: ','.repeat(600) },
        { traceparent: `00-${'0'.repeat(32)}-${'0'.repeat(16)}-01` },
        { connection: 'authorization, content-length, x-request-id' },
        { connection: 'upgrade', upgrade: 'h2c' },
        { 'x-forwarded-for': '127.0.0.1', forwarded: 'for=127.0.0.1', 'x-real-ip': '::1' },
        { 'x-http-method-override': 'DELETE', 'x-method-override': 'DELETE' },
        { 'x-original-url': '/internal/doctor', 'x-rewrite-url': '/internal/doctor' },
        { origin: 'null', 'access-control-request-method': 'EVIL' },
        { cookie: `a=${'b'.repeat(4_000)}` },
        { 'x-api-key': 'cpk_' },
        { expect: '200-maybe' },
        { 'x-deadline-ms': '-1' },
        { baggage: '=%zz' },
        { __proto__x: '1', constructor: '1' },
      )
      .map((headers) => ({ headers })),
  'an odd Idempotency-Key': ({ method }) =>
    method !== 'POST'
      ? undefined
      : fc
          .oneof(
            fc.constantFrom('', ' ', 'k'.repeat(255), 'k'.repeat(256), 'k, k', '\u00ff\u0080'),
            fc.string({ maxLength: 20 }),
          )
          .map((key) => ({ headers: { 'idempotency-key': inHeader(key) } })),
  'odd credentials': () =>
    fc
      .oneof(
        fc.constantFrom(
          'Bearer',
          'Bearer ',
          'Bearer a b',
          'Basic YTpi',
          'bearer x.y.z',
          'Bearer ..',
          'Bearer cpk_',
          'Bearer e30.e30.',
        ),
        oddText.map((text) => `Bearer ${text}`),
        fc.integer({ min: 8_000, max: 9_000 }).map((length) => `Bearer ${'t'.repeat(length)}`),
      )
      .map((authorization) => ({ headers: { authorization: inHeader(authorization) } })),
  'another method': () =>
    fc
      .constantFrom('HEAD', 'OPTIONS', 'PUT', 'PATCH', 'DELETE', 'PROPFIND', 'TRACE')
      .map((method) => ({ method })),
} satisfies Record<string, (operation: Operation, plain: Plain) => fc.Arbitrary<Change> | undefined>

export type Mutation = keyof typeof mutations
export const mutationNames = Object.keys(mutations) as readonly Mutation[]

/** The mutations that an operation has a place for. */
export function mutationsOf(operation: Operation): readonly Mutation[] {
  return mutationNames.filter(
    (name) => make(name)(operation, { path: operation.path, body: {} }) !== undefined,
  )
}

/** Cases of one mutation of an operation. */
export function casesOf(operation: Operation, mutation: Mutation, known: KnownIds): fc.Arbitrary<Case> {
  const body = operation.body === undefined ? fc.constant(undefined) : fitting(operation.body)
  return fc.tuple(fittingPath(operation, known), body, askerOf()).chain(([path, fits, asker]) => {
    const plain: Case = {
      ...{ operation, mutation, asker, path, method: operation.method },
      ...(fits === undefined
        ? { headers: {}, body: undefined }
        : { headers: json, body: JSON.stringify(fits) }),
    }
    const change = make(mutation)(operation, { path, body: fits }) ?? fc.constant<Change>({})
    return change.map(({ headers, ...rest }) => ({
      ...{ ...plain, ...rest },
      // A body's media type stays unless the change brings a body of its own.
      headers: 'body' in rest ? (headers ?? {}) : { ...plain.headers, ...headers },
    }))
  })
}

/** Most of all those who get furthest in. */
function askerOf(): fc.Arbitrary<Asker> {
  return fc.oneof({ arbitrary: fc.constant('admin' as const), weight: 4 }, fc.constantFrom(...askers))
}

function make(name: Mutation): (...given: Parameters<Make>) => fc.Arbitrary<Change> | undefined {
  return mutations[name]
}

function fittingPath({ path, parameters }: Operation, known: KnownIds): fc.Arbitrary<string> {
  const ids = parameters.filter((one) => one.in === 'path')
  const values = ids.map(({ name, schema }) => {
    const existing = known[name] ?? []
    const any = fitting(schema).map(String)
    return existing.length === 0 ? any : fc.oneof({ arbitrary: fc.constantFrom(...existing), weight: 4 }, any)
  })
  const query = fc.record(
    // What waits for a change would wait; that it does is tested elsewhere.
    Object.fromEntries(
      parameters
        .filter((one) => one.in === 'query' && one.name !== 'wait')
        .map((one) => [one.name, fitting(one.schema)]),
    ),
    {
      requiredKeys: parameters
        .filter(({ in: place, required }) => place === 'query' && required)
        .map(({ name }) => name),
    },
  )
  return fc.tuple(fc.tuple(...values), query).map(([chosen, asked]) => {
    const filled = ids.reduce(
      (text, { name }, at) => text.replace(`{${name}}`, () => encoded(chosen[at] ?? '')),
      path,
    )
    const text = new URLSearchParams(
      Object.fromEntries(Object.entries(asked).map(([name, value]) => [name, String(value)])),
    ).toString()
    return text === '' ? filled : `${filled}?${text}`
  })
}

function hasBody({ body }: Operation) {
  return <Given>(change: fc.Arbitrary<Given>): fc.Arbitrary<Given> | undefined =>
    body === undefined ? undefined : change
}

function onField(
  { body }: Operation,
  change: (name: string, schema: Schema) => fc.Arbitrary<unknown>,
): fc.Arbitrary<Change> | undefined {
  const fields = Object.entries(body?.properties ?? {})
  if (fields.length === 0) return undefined
  return fc.constantFrom(...fields).chain(([name, schema]) => change(name, schema).map(jsonBody))
}

function onIds(operation: Operation, value: () => fc.Arbitrary<string>): fc.Arbitrary<Change> | undefined {
  return onPath(operation, () => value().map(encoded))
}

function onPath(
  { path, parameters }: Operation,
  value: () => fc.Arbitrary<string>,
): fc.Arbitrary<Change> | undefined {
  const ids = parameters.filter((one) => one.in === 'path')
  if (ids.length === 0) return undefined
  return fc.tuple(...ids.map(value)).map((values) => ({
    path: ids.reduce((text, { name }, at) => text.replace(`{${name}}`, () => values[at] ?? ''), path),
  }))
}

function onQuery(
  { parameters }: Operation,
  value: (one: Parameter) => fc.Arbitrary<string>,
  path: string,
): fc.Arbitrary<Change> | undefined {
  const places = parameters.filter((one) => one.in === 'query' && one.name !== 'wait')
  if (places.length === 0) return undefined
  return fc
    .constantFrom(...places)
    .chain((one) =>
      value(one).map((text) => ({ path: `${path.split('?')[0]}?${one.name}=${encoded(text)}` })),
    )
}

function jsonBody(value: unknown): Change {
  return { headers: json, body: JSON.stringify(value) ?? '' }
}

function withField(body: unknown, name: string, value: unknown): unknown {
  const copy = { ...(body as Record<string, unknown>) }
  // Also for `__proto__`, which an assignment would swallow.
  Object.defineProperty(copy, name, { value, enumerable: true, configurable: true, writable: true })
  return copy
}

function without(body: unknown, name: string): unknown {
  const { [name]: _gone, ...rest } = body as Record<string, unknown>
  return rest
}

function inserted(body: unknown, member: string): string {
  const text = JSON.stringify(body ?? {})
  return text.replace('{', () => (text === '{}' ? `{${member}` : `{${member},`))
}

/** Percent-encoded; halves of surrogates as they would be in UTF-8, which is none. */
function encoded(text: string): string {
  return text.isWellFormed()
    ? encodeURIComponent(text)
    : [...text].map((one) => (one.isWellFormed() ? encodeURIComponent(one) : '%ED%A0%80')).join('')
}

/** Only what Node sends in a head; the others need a socket of their own. */
function inHeader(text: string): string {
  return text.replaceAll(/[^\t\u0020-\u007e\u0080-\u00ff]/g, '?')
}
