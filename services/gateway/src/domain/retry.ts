/* When a request may be sent a second time. */
import type { Outcome } from './balancer.ts'

/** The connection never came about: nothing was sent, whatever the method. */
const neverSent = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
])
/** The connection broke: the other side may have acted or not. */
const broken = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])
/** @see RFC 9110, section 9.2.2 */
const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'PUT', 'DELETE'])

/** True for methods that have the same effect twice as once. */
export function mayRepeat(method: string): boolean {
  return idempotent.has(method)
}

/** True for the answers by which an instance says that it cannot serve now. */
export function isFailing(status: number): boolean {
  return status === 502 || status === 503 || status === 504
}

/**
 * What a request without an answer means. `outcome`: for the instance; undefined when it is not to blame. `next`: `move`, it
 * never left, so another instance takes it; `repeat`, it may have acted, and may act again; `end`, neither.
 */
export function afterFailure(
  error: Error,
  { method, isBodyTouched }: { method: string; isBodyTouched: boolean },
): { outcome: Outcome | undefined; next: 'move' | 'repeat' | 'end' } {
  const code = 'code' in error ? String(error.code) : ''
  if (neverSent.has(code)) return { outcome: 'unreachable', next: isBodyTouched ? 'end' : 'move' }
  if (broken.has(code)) {
    return { outcome: 'unreachable', next: !isBodyTouched && mayRepeat(method) ? 'repeat' : 'end' }
  }
  const isBad = code === 'UND_ERR_HEADERS_TIMEOUT' || code.startsWith('HPE_')
  return { outcome: isBad ? 'failing' : undefined, next: 'end' }
}
