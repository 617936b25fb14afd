import { fingerprint } from '@cloudphone/adb-client/adb-key'

/* Android's public key struct (libcrypto_utils/android_pubkey.c), little endian: words of the modulus (64) | n0inv |
 * modulus, 256 bytes | R^2 mod n, 256 bytes | exponent. */
const STRUCT_BYTES = 524
const MODULUS_WORDS = 64
const MODULUS_BYTES = 256

export interface ParsedAdbKey {
  /** base64 and comment, normalised to one line. */
  readonly publicKey: string
  readonly comment: string
  /** MD5 as adb shows it: `AA:BB:...`. */
  readonly fingerprint: string
}

/** Reads the line of an `adbkey.pub`. Returns in words what is wrong with it. */
export function parseAdbKeyLine(line: string): ParsedAdbKey | { readonly wrong: string } {
  const [base64 = '', ...words] = line.trim().split(/[\s\0]+/)
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return { wrong: 'the first word is not base64' }
  const struct = Buffer.from(base64, 'base64')
  if (struct.length !== STRUCT_BYTES) {
    return { wrong: `it holds ${struct.length} bytes, Android's key structure has ${STRUCT_BYTES}` }
  }
  if (struct.readUInt32LE(0) !== MODULUS_WORDS) return { wrong: 'it is not an RSA key of 2048 bits' }
  if ((struct[8 + MODULUS_BYTES - 1] ?? 0) < 0x80) return { wrong: 'its modulus is shorter than 2048 bits' }
  const exponent = struct.readUInt32LE(STRUCT_BYTES - 4)
  if (exponent !== 3 && exponent !== 65_537) return { wrong: `its exponent is ${exponent}, not 3 or 65537` }
  const comment = words
    .join(' ')
    .replaceAll(/\p{Cc}/gu, '')
    .slice(0, 64)
  const publicKey = comment === '' ? base64 : `${base64} ${comment}`
  return { publicKey, comment, fingerprint: fingerprint(base64) }
}
