import {
  constants,
  createHash,
  createPrivateKey,
  generateKeyPair,
  type KeyObject,
  privateEncrypt,
} from 'node:crypto'
import { promisify } from 'node:util'
import { adbGeneratePublicKey } from '@yume-chan/adb'

/** An RSA-2048 key pair as adb uses it. */
export interface AdbKeyPair {
  /** PKCS #8, DER, base64. Secret. */
  readonly privateKey: string
  /** The line of an `adbkey.pub`: base64 of Android's 524-byte key structure, a space, a name. */
  readonly publicKey: string
}

/** Makes a new key pair; `name` stands at the end of the public key's line, such as `cloudphone@host`. */
export async function generateAdbKey(name: string): Promise<AdbKeyPair> {
  const pair = await promisify(generateKeyPair)('rsa', { modulusLength: 2048, publicExponent: 65537 })
  return fromPrivateKey(pair.privateKey, name)
}

/** The pair of a private key, such as the one that adb keeps in `~/.android/adbkey`. */
export function fromPrivateKey(privateKey: KeyObject, name: string): AdbKeyPair {
  const der = privateKey.export({ type: 'pkcs8', format: 'der' })
  const body = Buffer.from(adbGeneratePublicKey(der)).toString('base64')
  return { privateKey: der.toString('base64'), publicKey: `${body} ${name}` }
}

/** DigestInfo of SHA-1 in DER up to the digest (RFC 8017, section 9.2, note 1). */
const sha1Info = Buffer.from('3021300906052b0e03021a05000414', 'hex')

/**
 * Signs the token of an adb connection: RSASSA-PKCS1-v1_5 over 20 bytes that are taken for a SHA-1 digest as they are.
 * By OpenSSL in under a millisecond; the library's own signature takes 20 ms of JavaScript, in which nothing else runs.
 */
export function signToken({ privateKey }: AdbKeyPair, token: Uint8Array): Buffer {
  const key = createPrivateKey({ key: Buffer.from(privateKey, 'base64'), format: 'der', type: 'pkcs8' })
  return privateEncrypt({ key, padding: constants.RSA_PKCS1_PADDING }, Buffer.concat([sha1Info, token]))
}

/** MD5 over the key structure, as adbd shows it: `AA:BB:...`. Names a key; not a protection. */
export function fingerprint(publicKey: string): string {
  const body = publicKey.trim().split(/\s+/)[0] ?? ''
  const digest = createHash('md5').update(Buffer.from(body, 'base64')).digest('hex').toUpperCase()
  return digest.match(/../g)?.join(':') ?? ''
}
