import fc from 'fast-check'
import { expect, test } from 'vitest'
import { limitKeyOf, RateLimiter } from './rate-limit.ts'

const seeds = [
  { requests: 10, seconds: 1 },
  { requests: 100, seconds: 10 },
  { requests: 500, seconds: 60 },
]

test('the eleventh request of a second waits for the next second', () => {
  const limiter = new RateLimiter(seeds)
  const verdicts = Array.from({ length: 11 }, (_, index) => limiter.take('a', index))
  expect(verdicts.map((verdict) => verdict?.allowed)).toEqual([...Array(10).fill(true), false])
  expect(verdicts[0]).toEqual({ allowed: true, limit: 10, remaining: 9, resetSeconds: 1 })
  expect(verdicts[10]).toEqual({ allowed: false, limit: 10, remaining: 0, resetSeconds: 1 })
  expect(limiter.take('a', 999)?.allowed).toBe(false)
  expect(limiter.take('a', 1_000)?.allowed).toBe(true)
})

test('the longer windows hold over the shorter ones, and say when they open', () => {
  const limiter = new RateLimiter(seeds)
  let allowed = 0
  for (let nowMs = 0; nowMs < 60_000; nowMs += 50) if (limiter.take('a', nowMs)?.allowed) allowed += 1
  expect(allowed).toBe(500)
  expect(limiter.take('a', 59_999)).toMatchObject({ allowed: false, limit: 500, resetSeconds: 1 })
  expect(limiter.take('a', 60_000)?.allowed).toBe(true)
})

test('one caller does not use up another’s', () => {
  const limiter = new RateLimiter(seeds)
  for (let index = 0; index < 20; index += 1) limiter.take('a', 0)
  expect(limiter.take('b', 0)).toMatchObject({ allowed: true, remaining: 9 })
})

test('0 switches a limit off; without any there is no verdict', () => {
  expect(new RateLimiter(seeds.map((limit) => ({ ...limit, requests: 0 }))).take('a', 0)).toBeUndefined()
  const one = new RateLimiter([
    { requests: 0, seconds: 1 },
    { requests: 100, seconds: 10 },
  ])
  expect(one.policy).toBe('100;w=10')
  expect(one.take('a', 0)).toMatchObject({ limit: 100 })
})

test('whatever comes when: no window lets through more than its limit', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 400 }), { maxLength: 400 }), (gapsMs) => {
      const limits = [
        { requests: 3, seconds: 1 },
        { requests: 7, seconds: 5 },
      ]
      const limiter = new RateLimiter(limits)
      const allowedAt: number[] = []
      let nowMs = 0
      for (const gapMs of gapsMs) {
        nowMs += gapMs
        if (limiter.take('a', nowMs)?.allowed) allowedAt.push(nowMs)
      }
      // Fixed windows: any stretch of one window's length touches two windows at most.
      for (const { requests, seconds } of limits) {
        for (const from of allowedAt) {
          const within = allowedAt.filter((at) => at >= from && at < from + seconds * 1000)
          expect(within.length).toBeLessThanOrEqual(2 * requests)
        }
      }
    }),
    { seed: 1 },
  )
})

test('memory is bounded: the quietest key is forgotten first', () => {
  const limiter = new RateLimiter([{ requests: 1, seconds: 60 }], { maxKeys: 2 })
  limiter.take('a', 0)
  limiter.take('b', 1)
  limiter.take('a', 2)
  limiter.take('c', 3)
  expect(limiter.take('a', 4)?.allowed).toBe(false)
  expect(limiter.take('b', 5)?.allowed).toBe(true)
})

test.each([
  ['203.0.113.9', 'address:203.0.113.9'],
  ['::ffff:203.0.113.9', 'address:203.0.113.9'],
  ['2001:db8:1:2:aaaa:bbbb:cccc:dddd', 'address:2001:db8:1:2::/64'],
  ['2001:db8:1:2::9', 'address:2001:db8:1:2::/64'],
  ['2001:db8::9', 'address:2001:db8:0:0::/64'],
  ['::1', 'address:0:0:0:0::/64'],
  ['fe80::1%eth0', 'address:fe80:0:0:0::/64'],
])('%s counts as %s', (address, key) => {
  expect(limitKeyOf(address)).toBe(key)
})
