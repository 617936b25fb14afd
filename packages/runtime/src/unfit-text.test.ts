import { expect, test } from 'vitest'
import { unfitText } from './unfit-text.ts'

test.each([
  ['a\0b', []],
  [{ name: 'fit', scopes: ['fit', '\0'] }, ['scopes', '1']],
  [{ a: { b: { c: 'half a pair \ud83d' } } }, ['a', 'b', 'c']],
  [{ a: { 'b\0': 1 } }, ['a']],
])('in %j it is found where it lies', (value, place) => expect(unfitText(value)).toEqual(place))

test.each(['', 'ordinary', '手机', '📱', { a: [1, null, true, 'b'], c: {} }, undefined, 7])(
  '%j is fit',
  (value) => expect(unfitText(value)).toBeUndefined(),
)

test('a value may be as deep as it likes', () => {
  let deep: unknown = 'a\0b'
  for (let level = 0; level < 5_000; level += 1) deep = [deep]
  expect(unfitText(deep)).toHaveLength(5_000)
})
