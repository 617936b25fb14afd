import { describe, expect, it } from 'vitest'
import { forRecord, hidden, isSecretField } from './audit-redaction.ts'

describe('a field', () => {
  it.each([
    ...[
      'password',
      'newPassword',
      'password_hash',
      'passwordHash',
      'refreshToken',
      'accessToken',
      'apiKey',
      'key',
    ],
    ...[
      'clientSecret',
      'totpSecret',
      'recoveryCodes',
      'authorization',
      'Set-Cookie',
      'privateKey',
      'keyHash',
      'PIN',
    ],
  ])('%s is a secret', (name) => {
    expect(isSecretField(name)).toBe(true)
  })

  it.each([
    ...['name', 'email', 'publicKey', 'apiKeyId', 'tokenId', 'passwordChangedAt', 'tokenEpoch', 'requestKey'],
    ...['keyboard', 'monkey', 'spin', 'prefix', 'scopes', 'kid', 'hashtag', 'sha256', 'providerType'],
  ])('%s is none', (name) => {
    expect(isSecretField(name)).toBe(false)
  })
})

describe('what goes on record', () => {
  it('holds no secret, however deep, and none under an innocent name', () => {
    const jwt = `eyJ${'a'.repeat(20)}.${'b'.repeat(20)}.${'c'.repeat(20)}`
    const kept = forRecord({
      ...{ name: 'Ann', password: 'hush', nothing: null, token: null },
      nested: [{ apiKey: 'k', label: 'fine' }],
      words: `the key is cpk_${'x'.repeat(32)}`,
      note: jwt,
    })
    expect(kept).toEqual({
      ...{ name: 'Ann', password: hidden, nothing: null, token: null },
      nested: [{ apiKey: hidden, label: 'fine' }],
      ...{ words: hidden, note: hidden },
    })
    expect(JSON.stringify(kept)).not.toMatch(/hush|cpk_|eyJ/)
  })

  it('is what JSON can say', () => {
    const at = new Date('2026-01-02T03:04:05Z')
    expect(forRecord({ at, big: 2n ** 60n, bytes: Buffer.from('abc'), no: undefined, run: () => 1 })).toEqual(
      {
        ...{ at: '2026-01-02T03:04:05.000Z', big: '1152921504606846976', bytes: '[3 bytes]' },
      },
    )
    expect(forRecord(undefined)).toBeNull()
    expect(forRecord('a\0b\ud800')).toBe('a\uFFFDb\uFFFD')
    expect(forRecord(JSON.parse('{"__proto__": {"a": 1}}'))).toEqual(JSON.parse('{"__proto__": {"a": 1}}'))
  })

  it('is bounded, however large or deep the thing is', () => {
    const circle: Record<string, unknown> = {}
    circle.itself = circle
    const things = [
      'x'.repeat(1_000_000),
      Array.from({ length: 100_000 }, (_, at) => `item ${at}`),
      Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`field ${at}`, 'y'.repeat(400)])),
      circle,
    ]
    for (const thing of things) {
      expect(Buffer.byteLength(JSON.stringify(forRecord(thing)))).toBeLessThan(10_000)
    }
  })
})
