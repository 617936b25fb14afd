import type { Logger } from '@cloudphone/observe/log'
import { Redis, type Result } from 'ioredis'
import { type Cache, CacheAwayError } from './cache.ts'
import { verdictOf } from './window.ts'

export interface RedisCacheOptions {
  /** Such as `redis://127.0.0.1:6379/0`; `rediss:` for TLS. */
  readonly url: string
  /** Begins every key, so that installations can share a server. */
  readonly prefix: string
  readonly log: Logger
}

/** A cache that is slower than this is worse than none. */
const answerWithinMs = 250
const longestRetryMs = 1_000
/** A connection on which a question waited so long for any byte is given up: it may have been cut without a word. */
const longestSilenceMs = 2_000

/**
 * KEYS: the counter of each limit. ARGV: requests and milliseconds of each. Answers whether all allowed it, then count and
 * remaining milliseconds of each before it was counted. Redis runs a script alone, so nobody counts in between.
 */
const takeScript = `
local answer = {1}
for i = 1, #KEYS do
  local count = tonumber(redis.call('GET', KEYS[i]) or '0')
  local left = redis.call('PTTL', KEYS[i])
  if left <= 0 then
    count = 0
    left = tonumber(ARGV[2 * i])
  end
  if count >= tonumber(ARGV[2 * i - 1]) then answer[1] = 0 end
  answer[2 * i] = count
  answer[2 * i + 1] = left
end
if answer[1] == 1 then
  for i = 1, #KEYS do
    if redis.call('INCR', KEYS[i]) == 1 then redis.call('PEXPIRE', KEYS[i], ARGV[2 * i]) end
  end
end
return answer`

declare module 'ioredis' {
  interface RedisCommander<Context> {
    takeRequest(keys: number, ...keysAndFigures: readonly (string | number)[]): Result<number[], Context>
  }
}

/**
 * Opens a cache in Redis (6 or newer, or what speaks its protocol). It never waits for a server that is away: every call
 * is answered or refused within 250 ms, and the connection comes back by itself.
 */
export function openRedisCache({ url, prefix, log }: RedisCacheOptions): Cache {
  const redis = new Redis(url, {
    enableOfflineQueue: false,
    commandTimeout: answerWithinMs,
    connectTimeout: longestRetryMs,
    socketTimeout: longestSilenceMs,
    maxRetriesPerRequest: 0,
    scripts: { takeRequest: { lua: takeScript } },
    retryStrategy: (attempt) => Math.min(50 * attempt, longestRetryMs),
  })
  let isAway = false
  redis.on('error', (error) => {
    if (!isAway) log.warn({ event: 'cache.away', err: error })
    isAway = true
  })
  redis.on('ready', () => {
    log.info({ event: isAway ? 'cache.back' : 'cache.ready' })
    isAway = false
  })

  const ask = async <Answer>(question: () => Promise<Answer>): Promise<Answer> => {
    try {
      return await question()
    } catch (error) {
      throw new CacheAwayError('Redis does not answer', { cause: error })
    }
  }
  const entry = (key: string) => `${prefix}:entry:${key}`

  return {
    get: (key) => ask(async () => (await redis.get(entry(key))) ?? undefined),
    set: (key, value, ttlMs) =>
      ask(async () => {
        await redis.set(entry(key), value, 'PX', Math.ceil(ttlMs))
      }),
    delete: (key) =>
      ask(async () => {
        await redis.del(entry(key))
      }),
    take: async (key, limits) => {
      // The braces keep the counters of a key on one node of a cluster.
      const counters = limits.map(({ seconds }) => `${prefix}:taken:{${key}}:${seconds}`)
      const figures = limits.flatMap(({ requests, seconds }) => [requests, seconds * 1000])
      const answer = await ask(() => redis.takeRequest(counters.length, ...counters, ...figures))
      const [, ...states] = answer
      return verdictOf(
        limits,
        limits.map((_limit, index) => ({
          count: states[2 * index] ?? 0,
          resetMs: states[2 * index + 1] ?? 0,
        })),
      )
    },
    close: async () => {
      redis.disconnect()
    },
  }
}
