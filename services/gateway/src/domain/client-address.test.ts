import { expect, test } from 'vitest'
import { clientAddress, isRange, proxiesOf } from './client-address.ts'

const isTrusted = proxiesOf(['10.0.0.0/8', '192.0.2.7', '2001:db8::/32'])

test.each([
  ['203.0.113.9', '1.1.1.1', '203.0.113.9'],
  ['10.1.2.3', undefined, '10.1.2.3'],
  ['10.1.2.3', '1.1.1.1', '1.1.1.1'],
  ['::ffff:10.1.2.3', '1.1.1.1', '1.1.1.1'],
  // What the caller wrote in front of its own address is nothing to us.
  ['10.1.2.3', '127.0.0.1, 1.1.1.1, 10.9.9.9', '1.1.1.1'],
  ['2001:db8::1', '10.9.9.9, 192.0.2.7', '10.9.9.9'],
  ['10.1.2.3', 'nonsense', '10.1.2.3'],
  ['10.1.2.3', '1.1.1.1, nonsense, 10.9.9.9', '10.9.9.9'],
])('a connection of %s that forwards for %s is from %s', (remote, forwardedFor, address) => {
  expect(clientAddress(remote, forwardedFor, isTrusted)).toBe(address)
})

test('without trusted proxies nobody is believed', () => {
  expect(clientAddress('127.0.0.1', '1.1.1.1', proxiesOf([]))).toBe('127.0.0.1')
})

test('a range is an address with or without bits that fit its family', () => {
  expect(['10.0.0.0/8', '::1', '::/0', '1.2.3.4'].every(isRange)).toBe(true)
  expect(['10.0.0.0/33', '10.0.0.0/', 'proxy', '::/129', '1.2.3.4/8/8', ''].some(isRange)).toBe(false)
})
