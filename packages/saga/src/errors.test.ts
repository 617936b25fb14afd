import { expect, test } from 'vitest'
import { failureOf, PermanentError, withoutSecrets } from './errors.ts'

test.each([
  [
    'connect postgres://devices:s3cret@db:5432/core failed',
    'connect postgres://devices:***@db:5432/core failed',
  ],
  ['401 for Bearer eyJhbGciOi.J9.x', '401 for Bearer ***'],
  ['{"password":"hunter2","name":"a"}', '{"password":"***","name":"a"}'],
  ['access_key=AKIA123&region=cn', 'access_key=***&region=cn'],
  ['Docker create failed: no such image', 'Docker create failed: no such image'],
])('what is kept of "%s" holds no secret', (text, kept) => {
  expect(withoutSecrets(text)).toBe(kept)
})

test('a long message is cut, so that a dump does not fill the table', () => {
  expect(withoutSecrets('x'.repeat(1_000_000))).toHaveLength(1_000)
})

test('only an error that says so is permanent', () => {
  expect(failureOf(new Error('busy'))).toEqual({ message: 'busy', code: 'error', retryable: true })
  expect(failureOf('text')).toEqual({ message: 'text', code: 'error', retryable: true })
  expect(failureOf(new PermanentError('invalid', 'no'))).toEqual({
    message: 'no',
    code: 'invalid',
    retryable: false,
  })
  expect(failureOf({ code: 'quota', message: 'm', retryable: false }).retryable).toBe(false)
})
