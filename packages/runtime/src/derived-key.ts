import { hkdfSync } from 'node:crypto'

/** A key of 256 bits for one purpose, from the platform's secret (HKDF-SHA256, RFC 5869): the same in all processes. */
export function deriveKey(secret: string, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', `cloudphone ${purpose}`, 32))
}
