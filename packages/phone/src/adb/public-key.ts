import { constants, createHash, createPublicKey, type KeyObject, publicDecrypt } from 'node:crypto'

/* Android's public key struct (libcrypto_utils/android_pubkey.c), 524 bytes, little endian:
 * modulus size in 32-bit words (64) | n0inv | modulus, 256 bytes | R^2 mod n, 256 bytes | exponent (3 or 65537).
 * n0inv and R^2 are precomputed helpers; like Android's own reader, we do not look at them.
 */
const STRUCT_BYTES = 524
const MODULUS_WORDS = 64
const MODULUS_BYTES = 256
const TOKEN_BYTES = 20

/** DER of DigestInfo for SHA-1 (RFC 8017, section 9.2, note 1): what stands before the 20 bytes of digest. */
const SHA1_DIGEST_INFO = Buffer.from('3021300906052b0e03021a05000414', 'hex')

export interface AdbPublicKey {
  /** SHA-256 of the struct, hex: names the key in lists and logs. */
  readonly fingerprint: string
  readonly key: KeyObject
}

/**
 * Reads one line of `adbkey.pub`: base64 of the struct, and perhaps a blank and a comment (`user@host`).
 * Throws an Error that says what is wrong with it.
 */
export function parseAdbPublicKey(line: string): AdbPublicKey {
  const base64 = line.trim().split(/[\s\0]/, 1)[0] ?? ''
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) throw new Error('adb public key is not base64')
  const struct = Buffer.from(base64, 'base64')
  if (struct.length !== STRUCT_BYTES) {
    throw new Error(`adb public key has ${struct.length} bytes, Android's struct has ${STRUCT_BYTES}`)
  }
  if (struct.readUInt32LE(0) !== MODULUS_WORDS) throw new Error('adb public key is not RSA with 2048 bits')
  const exponent = struct.readUInt32LE(STRUCT_BYTES - 4)
  if (exponent !== 3 && exponent !== 65537)
    throw new Error(`adb public key has exponent ${exponent}, not 3 or 65537`)
  const modulus = Buffer.from(struct.subarray(8, 8 + MODULUS_BYTES)).reverse()
  if ((modulus[0] ?? 0) < 0x80) throw new Error('adb public key has a modulus shorter than 2048 bits')
  const e = exponent === 3 ? Buffer.from([3]) : Buffer.from([1, 0, 1])
  const jwk = { kty: 'RSA', n: modulus.toString('base64url'), e: e.toString('base64url') }
  return {
    fingerprint: createHash('sha256').update(struct).digest('hex'),
    key: createPublicKey({ key: jwk, format: 'jwk' }),
  }
}

/**
 * Whether `signature` was made over `token` with the private half of `key`. adb signs the 20 token bytes as if they
 * were a SHA-1 digest (PKCS#1 v1.5, DigestInfo + token), so `crypto.verify`, which would hash them first, cannot be used.
 */
export function verifyToken(key: AdbPublicKey, token: Buffer, signature: Buffer): boolean {
  if (signature.length !== MODULUS_BYTES || token.length !== TOKEN_BYTES) return false
  const tail = Buffer.concat([SHA1_DIGEST_INFO, token])
  const expected = Buffer.alloc(MODULUS_BYTES, 0xff)
  expected[0] = 0
  expected[1] = 1
  expected[MODULUS_BYTES - tail.length - 1] = 0
  tail.copy(expected, MODULUS_BYTES - tail.length)
  try {
    // A signature is public, and so is all it is compared with: nothing for a timing attack to learn here.
    return publicDecrypt({ key: key.key, padding: constants.RSA_NO_PADDING }, signature).equals(expected)
  } catch (error) {
    // OpenSSL refuses a number >= the modulus; that is simply no signature of this key.
    if (error instanceof Error && 'code' in error) return false
    throw error
  }
}
