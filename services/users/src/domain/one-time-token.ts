/* Terminology:
 * - one-time token: what a link in a mail holds; whoever shows it has read the mail
 */
import { createHmac } from 'node:crypto'
import { hashOfSecret } from '../secrets.ts'

/**
 * The token of an id, made from the id and a key of the platform: a mail that is sent again holds the same one, and the
 * token lies nowhere, neither in the tokens' table nor with the mails that wait.
 */
export function tokenOf(key: Buffer, id: string): string {
  return createHmac('sha256', key).update(`one-time token ${id}`).digest('base64url')
}

/** What is kept of it. */
export function tokenHashOf(key: Buffer, id: string): Buffer {
  return hashOfSecret(tokenOf(key, id))
}
