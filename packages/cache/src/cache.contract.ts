import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import type { Cache } from './cache.ts'

/** A cache under test. */
export interface CacheBed {
  readonly cache: Cache
  /** Lets at least `ms` pass there. */
  pass(ms: number): Promise<void>
}

/** What every adapter of the port keeps. Keys are new in each test, so that one server may serve all of them. */
export function cacheContract(bed: () => CacheBed): void {
  const limits = [
    { requests: 3, seconds: 1 },
    { requests: 5, seconds: 60 },
  ]
  const take = async (key: string) => bed().cache.take(key, limits)

  test('an entry is what was set last, until it is deleted', async () => {
    const { cache } = bed()
    const key = randomUUID()
    expect(await cache.get(key)).toBeUndefined()
    await cache.set(key, 'one', 60_000)
    await cache.set(key, 'zwei 二', 60_000)
    expect(await cache.get(key)).toBe('zwei 二')
    expect(await cache.get(randomUUID())).toBeUndefined()
    await cache.delete(key)
    await cache.delete(key)
    expect(await cache.get(key)).toBeUndefined()
  })

  test('an entry ends by itself', async () => {
    const { cache, pass } = bed()
    const [short, long] = [randomUUID(), randomUUID()]
    await cache.set(short, 'x', 1_000)
    await cache.set(long, 'x', 60_000)
    expect(await cache.get(short)).toBe('x')
    await pass(1_000)
    expect(await cache.get(short)).toBeUndefined()
    expect(await cache.get(long)).toBe('x')
  })

  test('a limit lets through so many in its window, and again in the next', async () => {
    const key = randomUUID()
    const first = await take(key)
    expect(first).toEqual({ allowed: true, limit: 3, remaining: 2, resetSeconds: 1 })
    expect([await take(key), await take(key), await take(key)].map(({ allowed }) => allowed)).toEqual([
      ...[true, true, false],
    ])
    expect(await take(key)).toEqual({ allowed: false, limit: 3, remaining: 0, resetSeconds: 1 })
    await bed().pass(1_000)
    // Those that were refused counted nowhere: two of five are left in the longer window.
    expect(await take(key)).toMatchObject({ allowed: true, limit: 5, remaining: 1 })
    expect(await take(key)).toMatchObject({ allowed: true, limit: 5, remaining: 0 })
    const refused = await take(key)
    expect(refused).toMatchObject({ allowed: false, limit: 5, remaining: 0 })
    expect(refused.resetSeconds).toBeGreaterThan(50)
  })

  test('one key does not use up another’s, nor one limit of a key that of another length', async () => {
    const [one, other] = [randomUUID(), randomUUID()]
    for (let index = 0; index < 4; index += 1) await take(one)
    expect(await take(other)).toMatchObject({ allowed: true, remaining: 2 })
  })

  test('of many at once as many are let through as the limit says', async () => {
    const key = randomUUID()
    const { cache } = bed()
    const verdicts = await Promise.all(
      Array.from({ length: 50 }, async () => cache.take(key, [{ requests: 7, seconds: 60 }])),
    )
    expect(verdicts.filter(({ allowed }) => allowed)).toHaveLength(7)
  })
}
