import { randomUUID } from 'node:crypto'
import { setTimeout as rest } from 'node:timers/promises'
import { type Cache, CacheAwayError } from '@cloudphone/cache/cache'
import { cacheContract } from '@cloudphone/cache/cache.contract'
import { openFallbackCache } from '@cloudphone/cache/fallback-cache'
import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import { openRedisCache } from '@cloudphone/cache/redis-cache'
import { systemClock } from '@cloudphone/observe/clock'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { type RedisServer, startRedis } from '@cloudphone/testing/redis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openTcpProxy } from '../src/tcp-proxy.ts'

let redis: RedisServer
beforeAll(async () => {
  redis = await startRedis()
})
afterAll(() => redis?.close())

const opened: Cache[] = []
afterEach(async () => {
  for (const cache of opened.splice(0)) await cache.close()
})
const limits = [{ requests: 2, seconds: 60 }]
/** A connection comes back within a second and a little. */
const within = { timeout: 20_000 }

/** A cache that has found the server. */
async function open(prefix: string): Promise<Cache> {
  const cache = openRedisCache({ url: redis.url, prefix, log: silentLog() })
  opened.push(cache)
  await expect.poll(() => answers(cache), within).toBe(true)
  return cache
}

const answers = (cache: Cache): Promise<boolean> =>
  cache.get('anything').then(
    () => true,
    () => false,
  )

describe('the contract', () => {
  let cache: Cache
  beforeEach(async () => {
    cache = await open(randomUUID())
  })
  // Real time: it passes in the server.
  cacheContract(() => ({ cache, pass: (ms) => rest(ms) }))
})

test('what one process keeps and counts another one has; another installation has not', async () => {
  const prefix = randomUUID()
  const [one, other, stranger] = [await open(prefix), await open(prefix), await open(randomUUID())]
  await one.set('a', 'kept', 60_000)
  await one.take('a', limits)
  expect(await other.get('a')).toBe('kept')
  expect(await other.take('a', limits)).toMatchObject({ allowed: true, remaining: 0 })
  expect(await one.take('a', limits)).toMatchObject({ allowed: false })
  expect(await stranger.get('a')).toBeUndefined()
  expect(await stranger.take('a', limits)).toMatchObject({ allowed: true, remaining: 1 })
})

test('many processes at once: never one more than the limit', async () => {
  const prefix = randomUUID()
  const caches = await Promise.all([open(prefix), open(prefix), open(prefix)])
  const wanted = [
    { requests: 20, seconds: 60 },
    { requests: 30, seconds: 120 },
  ]
  const verdicts = await Promise.all(
    Array.from({ length: 90 }, async (_, index) => await caches[index % 3]?.take('a', wanted)),
  )
  expect(verdicts.filter((verdict) => verdict?.allowed)).toHaveLength(20)
})

test.each([
  ['killed', (): Promise<void> => redis.kill(), (): Promise<void> => redis.start()],
  [
    'frozen',
    async () => void process.kill(redis.pid(), 'SIGSTOP'),
    async () => void process.kill(redis.pid(), 'SIGCONT'),
  ],
])(
  'while Redis is %s it is said so, this process answers for itself, and Redis is found again',
  async (_how, leave, comeBack) => {
    const prefix = randomUUID()
    const [shared, other] = [await open(prefix), await open(prefix)]
    const metrics = openMetrics('test')
    const own = openMemoryCache(systemClock)
    const cache = openFallbackCache({ shared, own, clock: systemClock, metrics })
    await cache.take('a', limits)
    await leave()
    try {
      await expect(other.get('a')).rejects.toThrow(CacheAwayError)
      const verdicts = [
        await cache.take('a', limits),
        await cache.take('a', limits),
        await cache.take('a', limits),
      ]
      expect(verdicts.map(({ allowed }) => allowed)).toEqual([true, true, false])
      expect(await metrics.render()).toMatch(/^cache_fallbacks_total\{.*operation="take".*\} 3$/m)
    } finally {
      await comeBack()
    }
    await expect
      .poll(async () => {
        // A new key each time: what was counted by this process alone is not what is asked for.
        const key = randomUUID()
        await cache.take(key, limits)
        return (await other.take(key, limits)).remaining
      }, within)
      .toBe(0)
  },
)

test('a cache opens without its server, and finds it when it comes', async () => {
  await redis.kill()
  const cache = openRedisCache({ url: redis.url, prefix: randomUUID(), log: silentLog() })
  opened.push(cache)
  expect(await answers(cache)).toBe(false)
  await redis.start()
  await expect.poll(() => answers(cache), within).toBe(true)
})

test('a connection that was cut without a word is given up, and another one works', async () => {
  const path = await openTcpProxy(Number(new URL(redis.url).port))
  const url = `redis://127.0.0.1:${path.port}`
  const cache = openRedisCache({ url, prefix: randomUUID(), log: silentLog() })
  opened.push(cache)
  try {
    await expect.poll(() => answers(cache), within).toBe(true)
    path.silence()
    expect(await answers(cache)).toBe(false)
    // The way is free again, but not for what was under way.
    path.heal()
    await expect.poll(() => answers(cache), within).toBe(true)
  } finally {
    await path.close()
  }
})
