import { hash, verify } from '@node-rs/argon2'
import { expect, test } from 'vitest'
import { openPasswordHasher } from './password-hasher.ts'

test('an account that does not exist costs the same work as a wrong password: one comparison of the same strength', async () => {
  const compared: string[] = []
  const hasher = await openPasswordHasher('nobody', {
    hash,
    verify: (encoded, password) => {
      compared.push(String(encoded))
      return verify(encoded, password)
    },
  })
  const real = await hasher.hash('correct horse battery')
  expect(await hasher.matches('correct horse battery', real)).toBe(true)
  expect(await hasher.matches('wrong horse battery', real)).toBe(false)
  expect(await hasher.matches('wrong horse battery', undefined)).toBe(false)
  // Nor does the stand-in's own password open anything.
  expect(await hasher.matches('nobody', undefined)).toBe(false)
  const strengths = compared.map((encoded) => encoded.split('$').slice(1, 4).join(' '))
  expect(strengths).toEqual(Array.from({ length: 4 }, () => 'argon2id v=19 m=19456,t=2,p=1'))
})
