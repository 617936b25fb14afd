import type { IncomingHttpHeaders } from 'node:http'
import type { Verdict } from '@cloudphone/cache/window'
import type { Route } from '@cloudphone/contracts/route'
import { publicRoutes } from '@cloudphone/contracts/routes'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import type { TokenVerifier } from '@cloudphone/runtime/tokens'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { ApiKeyExchange } from '../domain/api-key-exchange.ts'
import { type LimitClass, limitClassOf, limitKeyOf, type RateLimiter } from '../domain/rate-limit.ts'
import type { GatewayTelemetry } from '../telemetry.ts'

export interface DoorOptions {
  readonly tokens: TokenVerifier
  readonly apiKeys: ApiKeyExchange
  readonly limiter: RateLimiter
  readonly telemetry: GatewayTelemetry
}

const protectedRoutes = new Set(
  publicRoutes.filter(({ access }) => access.kind === 'user').map(({ method, path }) => `${method} ${path}`),
)

/** Places without limit: probes, and static pages that cost nothing. */
const unlimited = /^\/($|health\/|metrics$|api\/docs(\/|$)|api\/openapi\.json$)/

/**
 * What every request meets first: whose it is, and whether there are too many of them. An API key becomes an access
 * token in the request's headers, so that everything behind this door knows tokens only.
 */
export function guardDoor(app: FastifyInstance, options: DoorOptions): void {
  app.addHook('onRequest', async (request, reply) => {
    const template = request.routeOptions.url
    if (template !== undefined && unlimited.test(template)) return
    const method: Route['method'] | string = request.method === 'HEAD' ? 'GET' : request.method
    const limitClass = limitClassOf(method, template ?? '')
    const take = (key: string) =>
      takeOne({ key, limitClass }, options, (verdict) => tellLimits(reply, verdict, options.limiter))
    const identity = await identify(request, take, options)
    if (identity.counted === undefined) await take(`user:${identity.userId}`)
    if (!protectedRoutes.has(`${method} ${template ?? ''}`)) return
    if (identity.refusal !== undefined) throw identity.refusal
  })
}

/**
 * The same for a WebSocket: counted as reading, with an API key turned into an access token in its headers.
 * @throws ProblemError for whoever may not come in.
 */
export async function admitSocket(
  caller: { headers: IncomingHttpHeaders; ip: string },
  options: DoorOptions,
): Promise<void> {
  const take = (key: string) => takeOne({ key, limitClass: 'read' }, options)
  const identity = await identify(caller, take, options)
  if (identity.counted === undefined) await take(`user:${identity.userId}`)
  if (identity.refusal !== undefined) throw identity.refusal
}

type Identity =
  | { readonly counted?: undefined; readonly userId: string; readonly refusal?: undefined }
  /** Nobody that is known: counted by address, before any work was done for it. */
  | { readonly counted: 'by address'; readonly refusal: ProblemError }

async function identify(
  request: { readonly headers: IncomingHttpHeaders; readonly ip: string },
  take: (key: string) => Promise<void>,
  options: DoorOptions,
): Promise<Identity> {
  const credential = credentialOf(request)
  const byAddress = () => take(limitKeyOf(request.ip))
  if (credential === undefined) {
    await byAddress()
    return { counted: 'by address', refusal: common.unauthenticated() }
  }
  const isKey = credential.startsWith('cpk_')
  // Asking the users service is work: an unknown key counts by address first.
  const isCounted = isKey && !options.apiKeys.knows(credential)
  if (isCounted) await byAddress()
  try {
    const token = isKey ? await options.apiKeys.tokenOf(credential) : credential
    const { userId } = await options.tokens.verify(token)
    request.headers.authorization = `Bearer ${token}`
    delete request.headers['x-api-key']
    return { userId }
  } catch (error) {
    if (!(error instanceof ProblemError) || error.status >= 500) throw error
    if (!isCounted) await byAddress()
    options.telemetry.callerRefused({ code: error.code })
    return { counted: 'by address', refusal: error }
  }
}

function credentialOf({ headers }: { readonly headers: IncomingHttpHeaders }): string | undefined {
  const key = headers['x-api-key']
  if (typeof key === 'string' && key.startsWith('cpk_') && key.length <= 200) return key
  return /^Bearer (\S{1,8192})$/i.exec(headers.authorization ?? '')?.[1]
}

/** Counts a request, and tells how it stands. @throws ProblemError `rate_limited` with Retry-After. */
async function takeOne(
  { key, limitClass }: { key: string; limitClass: LimitClass },
  { limiter, telemetry }: Pick<DoorOptions, 'limiter' | 'telemetry'>,
  tell?: (verdict: Verdict) => void,
): Promise<void> {
  const taken = limiter.take(key, limitClass)
  // In this process it is known at once: nobody waits for a turn of the loop.
  const verdict = taken instanceof Promise ? await taken : taken
  if (verdict === undefined) return
  tell?.(verdict)
  if (verdict.allowed) return
  telemetry.limited({ kind: key.startsWith('user:') ? 'user' : 'address' })
  throw new ProblemError({
    status: 429,
    code: 'rate_limited',
    detail: common.rate_limited({ retryAfterSeconds: verdict.resetSeconds }).message,
    members: { retryAfterSeconds: verdict.resetSeconds },
    retryAfterSeconds: verdict.resetSeconds,
  })
}

function tellLimits(reply: Pick<FastifyReply, 'header'>, verdict: Verdict, { policy }: RateLimiter): void {
  reply.header('ratelimit-policy', policy)
  reply.header('ratelimit-limit', String(verdict.limit))
  reply.header('ratelimit-remaining', String(verdict.remaining))
  reply.header('ratelimit-reset', String(verdict.resetSeconds))
}
