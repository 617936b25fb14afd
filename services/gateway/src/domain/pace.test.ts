import { expect, test } from 'vitest'
import { Pace } from './pace.ts'

const limit = { bytesPerSecond: 100, windowMs: 10_000 }

test('a byte now and then is too slow, the wanted pace is not, and each window counts alone', () => {
  const pace = new Pace(limit)
  pace.want(0)
  pace.came(50_000)
  expect(pace.isTooSlow(9_999)).toBe(false)
  expect(pace.isTooSlow(10_000)).toBe(false)
  pace.came(1_000)
  expect(pace.isTooSlow(20_000)).toBe(false)
  pace.came(999)
  expect(pace.isTooSlow(30_000)).toBe(true)
})

test('the time in which nobody reads is not the sender’s', () => {
  const pace = new Pace(limit)
  pace.want(0)
  pace.rest(1_000)
  expect(pace.isTooSlow(100_000)).toBe(false)
  pace.want(100_000)
  expect(pace.isTooSlow(108_999)).toBe(false)
  expect(pace.isTooSlow(109_000)).toBe(true)
})
