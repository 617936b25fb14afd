import { expect, test } from 'vitest'
import { decodeCursor, decodeCursorOf, decodeOrdinalCursor, pageOf } from './cursor.ts'

const cursorOf = (key: string) => pageOf([1, 2], 1, String, () => key).nextCursor ?? undefined
const notOurs = expect.objectContaining({ status: 400, code: 'invalid_request' })

test('a cursor names the key of the last item shown, and only where there is more', () => {
  const id = '01a221d1-86f9-77b6-a773-594e985d8d5e'
  expect(decodeCursor(cursorOf(id))).toBe(id)
  expect(decodeOrdinalCursor(cursorOf('42'))).toBe(42)
  expect(decodeCursorOf(/^(\d+)_(\w+)$/, cursorOf('7_a'))?.slice(1)).toEqual(['7', 'a'])
  expect(pageOf([1], 1, String, () => id)).toEqual({ items: ['1'], nextCursor: null })
})

test('without a cursor a list begins at its front', () => {
  expect(decodeCursor(undefined)).toBeUndefined()
  expect(decodeOrdinalCursor(undefined)).toBeUndefined()
})

test.each(['', 'x', '-1', '42', '1e9', '0'.repeat(36), '01A221D1-86F9-77B6-A773-594E985D8D5E', "' or 1=1"])(
  '%j is no cursor of a list of ids',
  (key) => expect(() => decodeCursor(Buffer.from(key).toString('base64url'))).toThrow(notOurs),
)

test.each(['', 'x', '-1', '1e9', '9'.repeat(16)])('%j is no cursor of a list by arrival', (key) =>
  expect(() => decodeOrdinalCursor(Buffer.from(key).toString('base64url'))).toThrow(notOurs),
)

test('letters beyond ASCII are nobody’s cursor', () => {
  expect(() => decodeCursor('\u{f2687}\u{1f3c4}')).toThrow(notOurs)
})
