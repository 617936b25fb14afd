import { createHash, randomBytes } from 'node:crypto'

/** Mints secrets that cannot be guessed. Injected, so that a test can know them beforehand. */
export interface Secrets {
  /** 256 random bits as 43 characters of base64url. */
  next(): string
  /** So many random bytes. */
  bytes(count: number): Buffer
}

export const systemSecrets: Secrets = {
  next: () => randomBytes(32).toString('base64url'),
  bytes: (count) => randomBytes(count),
}

/** What is kept of a secret with 256 random bits: its SHA-256. A slow hash is for what people choose. */
export function hashOfSecret(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}
