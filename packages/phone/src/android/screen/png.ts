import { promisify } from 'node:util'
import { constants, crc32, deflate } from 'node:zlib'

const compress = promisify(deflate)
const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
/** Filter 2 of the PNG specification (ISO/IEC 15948): each byte minus the one above it. */
const FILTER_UP = 2

/**
 * Encodes opaque RGBA pixels as an RGB PNG. Measured for a 1080x1920 launcher: 120 ms of CPU against 550 ms of the
 * canvas's own encoder, which tries all filters on each row of its dithered gradients, and a third more bytes. The
 * compression runs on the thread pool.
 */
export async function encodePng(
  pixels: Uint8Array,
  size: { width: number; height: number },
): Promise<Buffer> {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(size.width, 0)
  header.writeUInt32BE(size.height, 4)
  // 8 bits, colour type RGB, deflate, adaptive filters, not interlaced.
  header.set([8, 2, 0, 0, 0], 8)
  const body = await compress(filterRows(pixels, size), { level: 2, strategy: constants.Z_FILTERED })
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', header),
    chunk('IDAT', body),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

function filterRows(pixels: Uint8Array, size: { width: number; height: number }): Buffer {
  const { width, height } = size
  const rows = Buffer.allocUnsafe((width * 3 + 1) * height)
  const stride = width * 4
  let to = 0
  for (let y = 0; y < height; y += 1) {
    rows[to] = y === 0 ? 0 : FILTER_UP
    to += 1
    let from = y * stride
    for (let x = 0; x < width; x += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        const above = y === 0 ? 0 : (pixels[from + channel - stride] ?? 0)
        rows[to] = (pixels[from + channel] ?? 0) - above
        to += 1
      }
      from += 4
    }
  }
  return rows
}

function chunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(data.length, 0)
  head.write(type, 4, 'latin1')
  const tail = Buffer.alloc(4)
  tail.writeUInt32BE(crc32(data, crc32(head.subarray(4))), 0)
  return Buffer.concat([head, data, tail])
}
