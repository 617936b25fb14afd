import { expect, test } from 'vitest'
import { describeTarget, redactTarget, retarget, socketTarget } from './target.ts'

test('a socket target keeps odd characters of names and passwords', () => {
  const parts = { user: 'a b', password: 'p@ss:/?#%', database: 'x y' }
  const target = socketTarget('/run/some where', parts)
  expect(describeTarget(target)).toEqual(parts)
  expect(new URL(target).searchParams.get('host')).toBe('/run/some where')
})

test('retarget replaces what it is given and keeps the server', () => {
  const target = retarget('postgres://admin:x@db.example:6432/postgres?sslmode=verify-full', {
    user: 'devices',
    password: 's/3',
    database: 'cloudphone_core',
  })
  expect(target).toBe('postgres://devices:s%2F3@db.example:6432/cloudphone_core?sslmode=verify-full')
})

test("libpq's form without a host is understood", () => {
  expect(describeTarget('postgres://me:pw@/db?host=/run/pg')).toEqual({
    user: 'me',
    password: 'pw',
    database: 'db',
  })
})

test('no password reaches a log or an error', () => {
  expect(redactTarget('postgres://me:secret@host/db')).toBe('postgres://me:***@host/db')
  expect(() => redactTarget('mysql://me:secret@host/db')).toThrow(/^(?!.*secret)Database URL/)
})
