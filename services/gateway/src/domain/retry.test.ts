import { expect, test } from 'vitest'
import { afterFailure, isFailing } from './retry.ts'

const failure = (code: string) => Object.assign(new Error(code), { code })

test.each([
  ['ECONNREFUSED', 'POST', false, 'unreachable', 'move'],
  ['ECONNREFUSED', 'POST', true, 'unreachable', 'end'],
  ['UND_ERR_CONNECT_TIMEOUT', 'PATCH', false, 'unreachable', 'move'],
  ['ECONNRESET', 'GET', false, 'unreachable', 'repeat'],
  ['ECONNRESET', 'PUT', true, 'unreachable', 'end'],
  ['UND_ERR_SOCKET', 'DELETE', false, 'unreachable', 'repeat'],
  ['UND_ERR_SOCKET', 'POST', false, 'unreachable', 'end'],
  ['UND_ERR_HEADERS_TIMEOUT', 'GET', false, 'failing', 'end'],
  ['HPE_INVALID_CONSTANT', 'GET', false, 'failing', 'end'],
  ['UND_ERR_INVALID_ARG', 'GET', false, undefined, 'end'],
] as const)('%s of a %s, body touched: %s', (code, method, isBodyTouched, outcome, next) => {
  expect(afterFailure(failure(code), { method, isBodyTouched })).toEqual({ outcome, next })
})

test('an instance that fails is told from one that found something wrong', () => {
  expect([200, 404, 500, 501, 502, 503, 504].filter(isFailing)).toEqual([502, 503, 504])
})
