import { fakeClock } from '@cloudphone/testing/fake-clock'
import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { type CacheBed, cacheContract } from './cache.contract.ts'
import { openMemoryCache } from './memory-cache.ts'
import type { Verdict } from './window.ts'

describe('the contract', () => {
  let bed: CacheBed
  beforeEach(() => {
    const clock = fakeClock()
    bed = { cache: openMemoryCache(clock), pass: clock.advance }
  })
  cacheContract(() => bed)
})

test('whatever comes when: no window lets through more than its limit', async () => {
  const limits = [
    { requests: 3, seconds: 1 },
    { requests: 7, seconds: 5 },
  ]
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat({ max: 400 }), { maxLength: 200 }), async (gapsMs) => {
      const clock = fakeClock()
      const cache = openMemoryCache(clock)
      const allowedAt: number[] = []
      for (const gapMs of gapsMs) {
        await clock.advance(gapMs)
        if ((await cache.take('a', limits)).allowed) allowedAt.push(clock.monotonicMs())
      }
      // Fixed windows: any stretch of one window's length touches two windows at most.
      for (const { requests, seconds } of limits) {
        for (const from of allowedAt) {
          const within = allowedAt.filter((at) => at >= from && at < from + seconds * 1000)
          expect(within.length).toBeLessThanOrEqual(2 * requests)
        }
      }
    }),
    { seed: 1, numRuns: 30 },
  )
})

test('memory is bounded: the quietest key is forgotten first', async () => {
  const cache = openMemoryCache(fakeClock(), { mostKeys: 2 })
  const take = (key: string) => cache.take(key, [{ requests: 1, seconds: 60 }]) as Verdict
  for (const key of ['a', 'b', 'a', 'c']) take(key)
  expect(take('a').allowed).toBe(false)
  expect(take('b').allowed).toBe(true)
})
