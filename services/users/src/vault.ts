import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'

/** Seals what must be read again later, and opens it. */
export interface Vault {
  /** `owner` is bound to it: what is sealed for one opens for nobody else. */
  seal(plain: Uint8Array, owner: string): Buffer
  /** @throws Error for what was not sealed here, for this owner. */
  open(sealed: Buffer, owner: string): Buffer
}

const nonceBytes = 12
const tagBytes = 16

/** AES-256-GCM (NIST SP 800-38D) with a random nonce: nonce, tag, ciphertext. `key`: 32 bytes. */
export function openVault(key: Buffer): Vault {
  return {
    seal: (plain, owner) => {
      const nonce = randomBytes(nonceBytes)
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(owner))
      const text = Buffer.concat([cipher.update(plain), cipher.final()])
      return Buffer.concat([nonce, cipher.getAuthTag(), text])
    },
    open: (sealed, owner) => {
      const nonce = sealed.subarray(0, nonceBytes)
      const tag = sealed.subarray(nonceBytes, nonceBytes + tagBytes)
      const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: tagBytes })
        .setAAD(Buffer.from(owner))
        .setAuthTag(tag)
      return Buffer.concat([decipher.update(sealed.subarray(nonceBytes + tagBytes)), decipher.final()])
    },
  }
}
