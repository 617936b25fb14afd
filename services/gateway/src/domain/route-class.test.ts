import { UploadApp } from '@cloudphone/contracts/api/apps-api'
import { CreateDevice, Screenshot } from '@cloudphone/contracts/api/devices-api'
import { GetSaga } from '@cloudphone/contracts/api/platform-api'
import { expect, test } from 'vitest'
import { classOf, deadlineOf } from './route-class.ts'

test('who waits gets the time it waits and some more; bytes get all the time they need', () => {
  const of = (route: Parameters<typeof classOf>[0], query: unknown = {}, givenMs?: number) =>
    deadlineOf(classOf(route), { query, givenMs })
  expect(of(CreateDevice)).toBe(30_000)
  expect(of(GetSaga, { wait: '60' })).toBe(75_000)
  expect(of(GetSaga, { wait: '1' })).toBe(16_000)
  for (const wait of ['0', '-1', '61', '1e9', 'x', ['1', '2']]) expect(of(GetSaga, { wait })).toBe(30_000)
  expect(of(UploadApp)).toBeUndefined()
  expect(of(Screenshot)).toBeUndefined()
})

test('a caller may have less time than we give, never more', () => {
  expect(deadlineOf(classOf(CreateDevice), { query: {}, givenMs: 500 })).toBe(500)
  expect(deadlineOf(classOf(CreateDevice), { query: {}, givenMs: 90_000 })).toBe(30_000)
  expect(deadlineOf(classOf(UploadApp), { query: {}, givenMs: 500 })).toBe(500)
})

test('only uploads take more than a megabyte', () => {
  expect(classOf(CreateDevice).limitBytes).toBe(1024 * 1024)
  expect(classOf(UploadApp).limitBytes).toBeGreaterThan(2 * 1024 ** 3)
})
