import { setTimeout as delay } from 'node:timers/promises'
import { Login, Refresh, type Tokens } from '@cloudphone/contracts/api/users-api'
import { type CallInput, pathOf, readAnswer } from '@cloudphone/contracts/request'
import { Problem, type ResultOf, type Route } from '@cloudphone/contracts/route'

/** An error as the platform answered it. */
export class CloudphoneError extends Error {
  readonly status: number
  readonly code: string
  readonly problem: Problem | undefined

  constructor(options: { status: number; code: string; detail: string; problem?: Problem; cause?: unknown }) {
    super(options.detail, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'CloudphoneError'
    this.status = options.status
    this.code = options.code
    this.problem = options.problem
  }
}

/** How a client proves who it is: an API key, a session, or e-mail and password for a session of its own. */
export type Credentials =
  | { readonly kind: 'api-key'; readonly key: string }
  | { readonly kind: 'session'; readonly tokens: Pick<Tokens, 'accessToken' | 'refreshToken'> }
  | { readonly kind: 'password'; readonly email: string; readonly password: string }

export interface ClientOptions {
  /** Such as `http://127.0.0.1:30000`. */
  readonly url: string
  readonly credentials?: Credentials
  /** Told whenever the tokens were renewed: keep them, since a refresh token works once. */
  readonly onTokens?: (tokens: Tokens) => Promise<void> | void
}

export interface SdkInput<R extends Route> extends CallInput<R> {
  /** Makes a POST safe to send again. */
  readonly idempotencyKey?: string
}

/** A typed client of the platform, over its gateway. */
export interface Client {
  readonly url: string
  /** Calls a route by its contract. @throws CloudphoneError */
  call<R extends Route>(route: R, input?: SdkInput<R>): Promise<ResultOf<R>>
  /** Every item of a list, page by page. */
  each<R extends Route>(
    route: R,
    input?: SdkInput<R>,
  ): AsyncIterable<ResultOf<R> extends { items: readonly (infer Item)[] } ? Item : never>
  /** The bytes of a `bytes` route. */
  bytes<R extends Route>(route: R, input?: CallInput<R>): Promise<Uint8Array>
  /** The same as they come, however many they are; they must be read to their end or cancelled. */
  stream<R extends Route>(route: R, input?: CallInput<R>): Promise<ReadableStream<Uint8Array>>
  /** Sends a file in the route's upload field. */
  upload<R extends Route>(
    route: R,
    file: { name: string; content: Blob },
    input?: CallInput<R>,
  ): Promise<ResultOf<R>>
  /** An access token that is good for now, for sockets. */
  accessToken(): Promise<string>
}

/** What a new access token may help against. */
const renewable = new Set(['token_expired', 'token_revoked', 'invalid_token'])

/** Opens a client. It signs in with the first call and renews its token when that has expired. */
export function openClient(options: ClientOptions): Client {
  const url = options.url.replace(/\/+$/, '')
  const session = openSession(url, options)

  const authorised = async <R extends Route>(
    route: R,
    send: (token: string | undefined) => Promise<Response>,
  ) => {
    if (route.access.kind === 'public') return checked(await send(undefined))
    const first = await send(await session.token())
    if (first.status !== 401) return checked(first)
    const problem = await problemOf(first)
    if (!renewable.has(problem.code)) throw problem
    return checked(await send(await session.renew(problem)))
  }

  const call = async <R extends Route>(route: R, input: SdkInput<R> = {}): Promise<ResultOf<R>> => {
    const response = await authorised(route, (token) =>
      request(url, route, input, {
        ...headersOf(input, token),
        ...(input.idempotencyKey !== undefined && { 'idempotency-key': input.idempotencyKey }),
      }),
    )
    return readAnswer(route, response.status === 204 ? undefined : await response.json()) as ResultOf<R>
  }

  const fetched = <R extends Route>(route: R, input: CallInput<R>): Promise<Response> =>
    authorised(route, (token) => request(url, route, input, headersOf(input, token)))

  return {
    url,
    call,
    each: (route, input = {}) => pages(call, route, input),
    bytes: async (route, input = {}) => new Uint8Array(await (await fetched(route, input)).arrayBuffer()),
    stream: async (route, input = {}) => (await fetched(route, input)).body ?? new Blob([]).stream(),
    upload: async (route, file, input = {}) => {
      const response = await authorised(route, (token) => {
        const form = new FormData()
        form.append(route.upload ?? 'file', file.content, file.name)
        return send(`${url}${pathOf(route, input)}`, {
          method: route.method,
          body: form,
          headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
          ...(input.signal && { signal: input.signal }),
        })
      })
      return readAnswer(route, await response.json()) as ResultOf<typeof route>
    },
    accessToken: () => session.token(),
  }
}

interface Session {
  token(): Promise<string>
  /** A new token after the old one was refused for the given reason. */
  renew(refused: CloudphoneError): Promise<string>
}

function openSession(url: string, { credentials, onTokens }: ClientOptions): Session {
  let tokens = credentials?.kind === 'session' ? credentials.tokens : undefined
  let renewing: Promise<string> | undefined

  const keep = async (next: Tokens): Promise<string> => {
    tokens = next
    await onTokens?.(next)
    return next.accessToken
  }
  const signIn = async (): Promise<string> => {
    if (credentials?.kind !== 'password') {
      throw new CloudphoneError({
        status: 401,
        code: 'unauthenticated',
        detail: 'Sign in first: cloudphone login',
      })
    }
    const { email, password } = credentials
    const response = await checked(await request(url, Login, { body: { email, password } }, json))
    return keep(readAnswer(Login, await response.json()) as Tokens)
  }
  const refresh = async (): Promise<string> => {
    if (tokens === undefined) return signIn()
    const { refreshToken } = tokens
    const response = await request(url, Refresh, { body: { refreshToken } }, json)
    if (response.ok) return keep(readAnswer(Refresh, await response.json()) as Tokens)
    if (credentials?.kind === 'password') return signIn()
    throw await problemOf(response)
  }
  return {
    token: async () => {
      if (credentials?.kind === 'api-key') return credentials.key
      if (tokens !== undefined) return tokens.accessToken
      renewing ??= once(signIn)
      return renewing
    },
    renew: async (refused) => {
      if (credentials?.kind === 'api-key') throw refused
      renewing ??= once(refresh)
      return renewing
    },
  }

  /** Calls that meet an expired token together renew it once: a refresh token works a single time. */
  async function once(work: () => Promise<string>): Promise<string> {
    try {
      return await work()
    } finally {
      renewing = undefined
    }
  }
}

/** How often a call that meets the rate limit is sent in all. */
const patience = 6

function headersOf<R extends Route>(
  { body }: CallInput<R>,
  token: string | undefined,
): Record<string, string> {
  return {
    ...(token !== undefined && { authorization: `Bearer ${token}` }),
    ...(body !== undefined && json),
  }
}

const json = { 'content-type': 'application/json' }

function request<R extends Route>(
  url: string,
  route: R,
  input: CallInput<R>,
  headers: Record<string, string>,
): Promise<Response> {
  return send(`${url}${pathOf(route, input)}`, {
    method: route.method,
    headers,
    ...(input.body !== undefined && { body: JSON.stringify(input.body) }),
    ...(input.signal && { signal: input.signal }),
  })
}

/** Sends, and waits as told when the platform says that it is too much; a caller's signal ends the waiting. */
async function send(address: string, init: RequestInit): Promise<Response> {
  for (let tries = 1; ; tries += 1) {
    const response = await sendOnce(address, init)
    if (response.status !== 429 || tries >= patience) return response
    const seconds = Number(response.headers.get('retry-after') ?? 1)
    await response.body?.cancel()
    await delay(
      Math.min(Math.max(seconds, 0.1), 60) * 1000,
      undefined,
      init.signal ? { signal: init.signal } : {},
    )
  }
}

async function sendOnce(address: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(address, init)
  } catch (error) {
    if (init.signal?.aborted === true) throw error
    const detail = `${new URL(address).origin} does not answer. Is the platform running? (npm start, or --url)`
    throw new CloudphoneError({ status: 0, code: 'unreachable', detail, cause: error })
  }
}

async function checked(response: Response): Promise<Response> {
  if (response.ok) return response
  throw await problemOf(response)
}

async function problemOf(response: Response): Promise<CloudphoneError> {
  const text = await response.text()
  try {
    const problem = Problem.parse(JSON.parse(text))
    return new CloudphoneError({
      status: response.status,
      code: problem.code,
      detail: problem.detail,
      problem,
    })
  } catch {
    // Not one of ours: a proxy between, most likely. Its own words are the best there is.
    const detail = `HTTP ${response.status} ${text.slice(0, 200)}`.trim()
    return new CloudphoneError({ status: response.status, code: 'unexpected_answer', detail })
  }
}

async function* pages<R extends Route>(
  call: Client['call'],
  route: R,
  input: SdkInput<R>,
): AsyncIterable<ResultOf<R> extends { items: readonly (infer Item)[] } ? Item : never> {
  let cursor: string | null = null
  do {
    const query = { ...input.query, ...(cursor !== null && { cursor }) } as NonNullable<SdkInput<R>['query']>
    const page = (await call(route, { ...input, query })) as {
      items: readonly never[]
      nextCursor: string | null
    }
    yield* page.items
    cursor = page.nextCursor
  } while (cursor !== null)
}
