import { createPrivateKey, type JsonWebKey, sign } from 'node:crypto'
import type { Books } from './books.ts'

/** The claims of an access token. */
export interface Claims {
  readonly [claim: string]: unknown
}

/** Reads a token without verifying it. */
export function readToken(token: string): { header: Claims; claims: Claims } {
  const [header = '', claims = ''] = token.split('.')
  return { header: decode(header), claims: decode(claims) }
}

/** A token over any header and claims, signed by the platform's own key: only its content can be wrong. */
export async function signedToken(books: Books, header: Claims, claims: Claims): Promise<string> {
  const [row] = await books.query('select private_jwk from users.signing_keys where active')
  const key = createPrivateKey({ key: row?.private_jwk as JsonWebKey, format: 'jwk' })
  const content = `${encode(header)}.${encode(claims)}`
  return `${content}.${sign(null, Buffer.from(content), key).toString('base64url')}`
}

/** A token whose signature is what the caller says: nothing, or that of somebody else. */
export function tokenWith(header: Claims, claims: Claims, signature: string): string {
  return `${encode(header)}.${encode(claims)}.${signature}`
}

function encode(part: Claims): string {
  return Buffer.from(JSON.stringify(part)).toString('base64url')
}

function decode(part: string): Claims {
  return JSON.parse(Buffer.from(part, 'base64url').toString())
}
