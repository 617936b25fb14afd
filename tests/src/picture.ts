import { createCanvas, loadImage } from '@napi-rs/canvas'

/** A decoded screenshot. */
export interface Picture {
  readonly width: number
  readonly height: number
  /** RGBA, row by row. */
  readonly pixels: Uint8ClampedArray
}

/** Decodes a PNG. @throws Error when it is none. */
export async function decodePng(png: Uint8Array): Promise<Picture> {
  const signature = Buffer.from(png.subarray(0, 8)).toString('latin1')
  if (signature !== '\x89PNG\r\n\x1a\n') throw new Error('this is not a PNG')
  const image = await loadImage(Buffer.from(png))
  const context = createCanvas(image.width, image.height).getContext('2d')
  context.drawImage(image, 0, 0)
  const { data } = context.getImageData(0, 0, image.width, image.height)
  return { width: image.width, height: image.height, pixels: data }
}

/** How many colours there are. */
export function colours({ pixels }: Picture): number {
  return new Set(new Uint32Array(pixels.buffer, pixels.byteOffset, pixels.length / 4)).size
}

/** Where and how much two pictures of one size differ, below `fromY`. */
export function difference(one: Picture, other: Picture, fromY = 0) {
  const [a, b] = [one, other].map(
    ({ pixels }) => new Uint32Array(pixels.buffer, pixels.byteOffset, pixels.length / 4),
  )
  let [count, left, right, top, bottom] = [0, one.width, 0, one.height, 0]
  for (let at = fromY * one.width; at < (a?.length ?? 0); at += 1) {
    if (a?.[at] === b?.[at]) continue
    const [x, y] = [at % one.width, Math.floor(at / one.width)]
    count += 1
    left = Math.min(left, x)
    right = Math.max(right, x)
    top = Math.min(top, y)
    bottom = Math.max(bottom, y)
  }
  return { count, width: right - left + 1, height: bottom - top + 1 }
}
