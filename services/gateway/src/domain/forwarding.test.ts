import { expect, test } from 'vitest'
import { endToEnd, requestHeaders, upstreamPath } from './forwarding.ts'

const own = { requestId: 'request-1', address: '203.0.113.9', scheme: 'https', addressProof: 'ours' } as const

test('headers of the connection stay behind, and those it names', () => {
  expect(
    endToEnd({
      connection: 'keep-alive, X-Secret',
      'keep-alive': 'timeout=5',
      'transfer-encoding': 'chunked',
      upgrade: 'h2c',
      'x-secret': '1',
      'content-length': '5',
      accept: '*/*',
    }),
  ).toEqual({ 'content-length': '5', accept: '*/*' })
})

test('nobody can pretend to come from elsewhere', () => {
  expect(
    requestHeaders(
      {
        host: 'phones.example',
        'x-forwarded-for': '10.0.0.1',
        'x-real-ip': '10.0.0.1',
        'x-address-proof': 'forged',
        forwarded: 'for=10.0.0.1',
        'x-request-id': 'theirs',
        'x-api-key': 'cpk_secret',
        expect: '100-continue',
        connection: 'close, X-Secret',
        'x-secret': '1',
        traceparent: '00-theirs',
        'x-deadline-ms': '1',
        authorization: 'Bearer t',
        'set-cookie': ['a', 'b'],
      },
      own,
    ),
  ).toEqual([
    ...['authorization', 'Bearer t', 'set-cookie', 'a', 'set-cookie', 'b'],
    ...['x-request-id', 'request-1', 'x-forwarded-for', '203.0.113.9', 'x-forwarded-proto', 'https'],
    ...['x-address-proof', 'ours', 'x-forwarded-host', 'phones.example'],
  ])
})

test('a path is made from the template: what a parameter holds cannot leave its place', () => {
  const template = '/api/devices/:deviceId/start'
  expect(upstreamPath(template, { deviceId: 'a b?c#d%' }, '/x?wait=3#f')).toBe(
    '/api/devices/a%20b%3Fc%23d%25/start?wait=3',
  )
  for (const deviceId of ['..', '.', '', '../internal', 'a/b', 'a\\b', 'a\0b', 'a\nb']) {
    expect(upstreamPath(template, { deviceId }, '/x')).toBeUndefined()
  }
})
