import { expect, test } from 'vitest'
import { weaknessOf } from './password.ts'

const owner = { email: 'mei.lin@example.com', name: 'Mei Lin Zhang' }

test.each([
  ['short', 'short1234'],
  ['one character', 'aaaaaaaaaaaaaaaa'],
  ['four characters', 'abcdabcdabcdabcd'],
  ['a run up', 'abcdefghijklmn'],
  ['a run down', 'nmlkjihgfedcba'],
  ['digits that wrap around', '1234567890123456'],
  ['a word guessed first', 'password12345'],
  ['the same in disguise', 'P@$$w0rd2026!'],
  ['the owner’s e-mail', 'mei.lin12345'],
  ['the owner’s name', 'zhangzhang2026'],
])('refuses %s', (_what, password) => {
  expect(weaknessOf(password, owner)).toMatch(/^it /)
})

test.each([
  'correct horse battery',
  '云手机平台第一号管理员密码很长',
  'kX9-vv2q-Tt8m',
  'zhang eats noodles at noon',
])('accepts %s', (password) => {
  expect(weaknessOf(password, owner)).toBeUndefined()
})
