import { openMetrics } from '@cloudphone/observe/metrics'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { type Cache, CacheAwayError } from './cache.ts'
import { openFallbackCache } from './fallback-cache.ts'
import { openMemoryCache } from './memory-cache.ts'

const limits = [{ requests: 2, seconds: 60 }]

/** A cache of its own behind a line that can be cut, which counts how often it is asked. */
function openLine(clock: ReturnType<typeof fakeClock>) {
  const cache = openMemoryCache(clock)
  const line = { isCut: false, asked: 0 }
  const through = <Answer>(question: () => Answer): Answer => {
    line.asked += 1
    if (line.isCut) throw new CacheAwayError('cut')
    return question()
  }
  const shared: Cache = {
    get: async (key) => through(() => cache.get(key)),
    set: async (key, value, ttlMs) => through(() => cache.set(key, value, ttlMs)),
    delete: async (key) => through(() => cache.delete(key)),
    take: async (key, wanted) => through(() => cache.take(key, wanted)),
    close: () => cache.close(),
  }
  return { line, shared }
}

test('while the shared one is away this process counts, asks once a second, and goes back to it', async () => {
  const clock = fakeClock()
  const { line, shared } = openLine(clock)
  const metrics = openMetrics('test')
  const cache = openFallbackCache({ shared, own: openMemoryCache(clock), clock, metrics })
  expect(await cache.take('a', limits)).toMatchObject({ remaining: 1 })
  line.isCut = true
  line.asked = 0
  const verdicts = [
    await cache.take('a', limits),
    await cache.take('a', limits),
    await cache.take('a', limits),
  ]
  expect(verdicts.map(({ allowed }) => allowed)).toEqual([true, true, false])
  expect(line.asked).toBe(1)
  await clock.advance(1_000)
  await Promise.all([cache.take('b', limits), cache.take('b', limits)])
  expect(line.asked).toBe(2)
  expect(await metrics.render()).toMatch(/cache_fallbacks_total\{operation="take",service="test"\} 5/)
  line.isCut = false
  await clock.advance(1_000)
  // It knows of the one request that it counted before.
  expect(await cache.take('a', limits)).toMatchObject({ allowed: true, remaining: 0 })
  expect(await cache.take('a', limits)).toMatchObject({ allowed: false })
})

test('what is deleted during an outage does not come back in the next one', async () => {
  const clock = fakeClock()
  const { line, shared } = openLine(clock)
  const cache = openFallbackCache({ shared, own: openMemoryCache(clock), clock, metrics: openMetrics('t') })
  line.isCut = true
  await cache.set('a', 'old', 60_000)
  expect(await cache.get('a')).toBe('old')
  line.isCut = false
  await clock.advance(1_000)
  await cache.delete('a')
  line.isCut = true
  expect(await cache.get('a')).toBeUndefined()
})

test('an error of another kind is not hidden', async () => {
  const clock = fakeClock()
  const own = openMemoryCache(clock)
  const shared: Cache = { ...own, get: () => Promise.reject(new TypeError('a mistake')) }
  const cache = openFallbackCache({ shared, own, clock, metrics: openMetrics('t') })
  await expect(cache.get('a')).rejects.toThrow('a mistake')
})
