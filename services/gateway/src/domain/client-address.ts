/* Whose a request is when proxies stand in front: `X-Forwarded-For` says it, but anybody can send that header. */
import { BlockList, isIP } from 'node:net'

/** True for an IP address, or a range of them in CIDR notation (RFC 4632, section 3.1). */
export function isRange(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/')
  const family = isIP(address)
  if (family === 0 || more.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128))
}

/** Tells the proxies that the operator trusts from anybody else. */
export function proxiesOf(ranges: readonly string[]): (address: string) => boolean {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    const family = isIP(address) === 4 ? 'ipv4' : 'ipv6'
    if (bits === undefined) list.addAddress(address, family)
    else list.addSubnet(address, Number(bits), family)
  }
  return (address) => {
    // A server that listens on both families sees IPv4 as ::ffff:a.b.c.d.
    const plain = address.replace(/^::ffff:(?=\d+\.)/i, '')
    return list.check(plain, isIP(plain) === 4 ? 'ipv4' : 'ipv6')
  }
}

/**
 * The caller's address: that of the connection, unless a trusted proxy made it. Then the last in `X-Forwarded-For` that is
 * no trusted proxy: what stands before it was said by somebody we do not know.
 */
export function clientAddress(
  remote: string,
  forwardedFor: string | undefined,
  isTrusted: (address: string) => boolean,
): string {
  if (forwardedFor === undefined || !isTrusted(remote)) return remote
  let nearest = remote
  for (const address of forwardedFor.split(',').toReversed()) {
    const one = address.trim()
    if (isIP(one) === 0) return nearest
    nearest = one
    if (!isTrusted(one)) return one
  }
  return nearest
}
