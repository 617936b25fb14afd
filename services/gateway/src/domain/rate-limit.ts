/* Terminology:
 * - class: routes that are counted together; what a caller does in one class takes nothing from another
 */
import type { Cache } from '@cloudphone/cache/cache'
import type { Limit, Verdict } from '@cloudphone/cache/window'

/** Signing in and guessing, what changes something, and what only looks. */
export type LimitClass = 'auth' | 'write' | 'read'

/** The class of a request. Whatever is no known route counts by its method. */
export function limitClassOf(method: string, path: string): LimitClass {
  if (path.startsWith('/api/auth/') && method !== 'GET') return 'auth'
  return method === 'GET' || method === 'HEAD' || method === 'OPTIONS' ? 'read' : 'write'
}

/** Counts requests per caller and class: in this process, or for all gateways, as the cache does. */
export class RateLimiter {
  readonly #cache: Pick<Cache, 'take'>
  readonly #limits: readonly Limit[]
  /** Such as `10;w=1, 100;w=10`: the limits in force; empty without any. */
  readonly policy: string

  /** Limits of 0 requests are off. */
  constructor(cache: Pick<Cache, 'take'>, limits: readonly Limit[]) {
    this.#cache = cache
    this.#limits = limits.filter(({ requests }) => requests > 0)
    this.policy = this.#limits.map(({ requests, seconds }) => `${requests};w=${seconds}`).join(', ')
  }

  /** Counts one request if every limit allows it. Undefined when no limit is on. */
  take(key: string, limitClass: LimitClass): Verdict | undefined | Promise<Verdict> {
    if (this.#limits.length === 0) return undefined
    return this.#cache.take(`${limitClass}:${key}`, this.#limits)
  }
}

/**
 * The key of somebody known only by address. Of an IPv6 address the first 64 bits: its owner has all the others too
 * (RFC 6177), and would else be a new caller with every request.
 */
export function limitKeyOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return `address:${mapped}`
  if (!address.includes(':')) return `address:${address}`
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? []
  const before = head === '' ? [] : head.split(':')
  const after = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - before.length - after.length }, () => '0')
  return `address:${[...before, ...zeros, ...after].slice(0, 4).join(':')}::/64`
}
