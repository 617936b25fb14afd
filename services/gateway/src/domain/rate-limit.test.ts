import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import type { Verdict } from '@cloudphone/cache/window'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import { expect, test } from 'vitest'
import { limitClassOf, limitKeyOf, RateLimiter } from './rate-limit.ts'

const seeds = [
  { requests: 10, seconds: 1 },
  { requests: 100, seconds: 10 },
  { requests: 500, seconds: 60 },
]

test('the eleventh request of a second waits for the next second', async () => {
  const clock = fakeClock()
  const limiter = new RateLimiter(openMemoryCache(clock), seeds)
  const take = () => limiter.take('a', 'read') as Verdict
  const verdicts = Array.from({ length: 11 }, take)
  expect(verdicts.map(({ allowed }) => allowed)).toEqual([...Array(10).fill(true), false])
  expect(verdicts[0]).toEqual({ allowed: true, limit: 10, remaining: 9, resetSeconds: 1 })
  expect(verdicts[10]).toEqual({ allowed: false, limit: 10, remaining: 0, resetSeconds: 1 })
  await clock.advance(999)
  expect(take().allowed).toBe(false)
  await clock.advance(1)
  expect(take().allowed).toBe(true)
})

test('the longer windows hold over the shorter ones, and say when they open', async () => {
  const clock = fakeClock()
  const limiter = new RateLimiter(openMemoryCache(clock), seeds)
  const take = () => limiter.take('a', 'read') as Verdict
  let allowed = 0
  for (let step = 0; step < 1_199; step += 1) {
    if (take().allowed) allowed += 1
    await clock.advance(50)
  }
  expect(allowed).toBe(500)
  expect(take()).toMatchObject({ allowed: false, limit: 500, resetSeconds: 1 })
  await clock.advance(50)
  expect(take().allowed).toBe(true)
})

test('one caller does not use up another’s, nor one class another’s', async () => {
  const limiter = new RateLimiter(openMemoryCache(fakeClock()), seeds)
  for (let index = 0; index < 20; index += 1) await limiter.take('a', 'read')
  expect(limiter.take('b', 'read')).toMatchObject({ allowed: true, remaining: 9 })
  expect(limiter.take('a', 'write')).toMatchObject({ allowed: true, remaining: 9 })
  expect(limiter.take('a', 'read')).toMatchObject({ allowed: false })
})

test('0 switches a limit off; without any there is no verdict', () => {
  const cache = openMemoryCache(fakeClock())
  const off = new RateLimiter(
    cache,
    seeds.map((limit) => ({ ...limit, requests: 0 })),
  )
  expect(off.take('a', 'read')).toBeUndefined()
  const one = new RateLimiter(cache, [
    { requests: 0, seconds: 1 },
    { requests: 100, seconds: 10 },
  ])
  expect(one.policy).toBe('100;w=10')
  expect(one.take('a', 'read')).toMatchObject({ limit: 100 })
})

test.each([
  ['POST', '/api/auth/login', 'auth'],
  ['GET', '/api/auth/me', 'read'],
  ['HEAD', '/api/devices', 'read'],
  ['DELETE', '/api/devices/:deviceId', 'write'],
  ['POST', '/api/apps', 'write'],
  ['TRACE', '', 'write'],
])('%s %s counts as %s', (method, path, limitClass) => {
  expect(limitClassOf(method, path)).toBe(limitClass)
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
