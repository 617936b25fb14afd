import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { billedSeconds, costMicro } from './cost.ts'

const hourPrice = 1_000_000

describe('costMicro', () => {
  test('3,600 s at 1.00 an hour cost 1.00', () => {
    expect(costMicro(3600, hourPrice)).toBe(1_000_000)
  })

  test('halves go to the even neighbour', () => {
    // 1 s at 1800 an hour is half a micro-unit, 3 s are one and a half, 5 s two and a half.
    expect([1, 3, 5, 7].map((seconds) => costMicro(seconds, 1800))).toEqual([0, 2, 2, 4])
  })

  test('a third of a second unit rounds down, two thirds round up', () => {
    expect([1, 2].map((seconds) => costMicro(seconds, 1200))).toEqual([0, 1])
  })

  test('refuses what is not a whole number from 0, and costs that no number holds', () => {
    for (const wrong of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => costMicro(wrong, 1)).toThrow(RangeError)
      expect(() => costMicro(1, wrong)).toThrow(RangeError)
    }
    expect(() => costMicro(Number.MAX_SAFE_INTEGER, hourPrice)).toThrow(/too much/)
  })

  const seconds = fc.nat({ max: 1_000_000_000 })
  const price = fc.nat({ max: 30_000_000 })

  test('is within half a micro-unit of the exact cost', () => {
    fc.assert(
      fc.property(seconds, price, (s, p) => {
        const off = BigInt(costMicro(s, p)) * 3600n - BigInt(s) * BigInt(p)
        return off <= 1800n && off >= -1800n
      }),
    )
  })

  test('never falls when the use or the price grows, and an hour costs the price', () => {
    fc.assert(
      fc.property(seconds, price, (s, p) => {
        expect(costMicro(s + 1, p)).toBeGreaterThanOrEqual(costMicro(s, p))
        expect(costMicro(s, p + 1)).toBeGreaterThanOrEqual(costMicro(s, p))
        expect(costMicro(3600, p)).toBe(p)
      }),
    )
  })

  test('splitting a use in two changes its cost by at most one micro-unit', () => {
    fc.assert(
      fc.property(seconds, seconds, price, (one, other, p) => {
        const split = costMicro(one, p) + costMicro(other, p)
        return Math.abs(split - costMicro(one + other, p)) <= 1
      }),
    )
  })
})

test('a second that was only begun is not billed, and a clock that ran backwards bills nothing', () => {
  const start = new Date('2026-03-29T01:00:00.000Z')
  expect(billedSeconds(start, new Date('2026-03-29T01:00:01.999Z'))).toBe(1)
  expect(billedSeconds(start, new Date('2026-03-29T00:00:00.000Z'))).toBe(0)
})
