import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { newKey, signToken } from './client-fixture.ts'
import { parseAdbPublicKey, verifyToken } from './public-key.ts'

describe('adb keys', () => {
  test('verify what their private half signed, and nothing else', () => {
    const [mine, other] = [newKey(), newKey()]
    const token = randomBytes(20)
    const signature = signToken(mine.privateKey, token)
    const key = parseAdbPublicKey(mine.publicKey)
    expect(verifyToken(key, token, signature)).toBe(true)
    expect(verifyToken(parseAdbPublicKey(other.publicKey), token, signature)).toBe(false)
    expect(verifyToken(key, randomBytes(20), signature)).toBe(false)
    for (const forged of [
      Buffer.alloc(256),
      Buffer.alloc(256, 0xff),
      randomBytes(256),
      signature.subarray(1),
    ]) {
      expect(verifyToken(key, token, forged)).toBe(false)
    }
  })

  test('name themselves alike with and without a comment', () => {
    const { publicKey } = newKey()
    const bare = publicKey.split(' ')[0]!
    expect(parseAdbPublicKey(`${bare}\n`).fingerprint).toBe(parseAdbPublicKey(publicKey).fingerprint)
  })

  test('say what is wrong with them', () => {
    const struct = Buffer.from(newKey().publicKey.split(' ')[0]!, 'base64')
    const short = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({
      type: 'spki',
      format: 'der',
    })
    const even = Buffer.from(struct)
    even.writeUInt32LE(4, 520)
    expect(() => parseAdbPublicKey('ssh-rsa AAAA')).toThrow('not base64')
    expect(() => parseAdbPublicKey(short.toString('base64'))).toThrow(`has ${short.length} bytes`)
    expect(() => parseAdbPublicKey(even.toString('base64'))).toThrow('exponent 4')
    expect(() => parseAdbPublicKey(Buffer.alloc(524).toString('base64'))).toThrow('not RSA with 2048 bits')
  })
})
