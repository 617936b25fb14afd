import { createHash, generateKeyPair, type KeyObject } from 'node:crypto'
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

/** MD5 over the key structure, as adbd shows it: `AA:BB:...`. Names a key; not a protection. */
export function fingerprint(publicKey: string): string {
  const body = publicKey.trim().split(/\s+/)[0] ?? ''
  const digest = createHash('md5').update(Buffer.from(body, 'base64')).digest('hex').toUpperCase()
  return digest.match(/../g)?.join(':') ?? ''
}
