import type { Readable } from 'node:stream'

/** The stream ended where more bytes were due. */
export class EndOfStream extends Error {
  override readonly name = 'EndOfStream'
}

/** Reads counted bytes from a stream. Whole chunks pass as views, without a copy. */
export class ByteReader {
  readonly #chunks: AsyncIterator<Buffer>
  #chunk: Buffer = Buffer.alloc(0)

  constructor(stream: Readable) {
    this.#chunks = stream.iterator({ destroyOnReturn: false })
  }

  /** Between 1 and `max` bytes, what is there first. Throws `EndOfStream`. */
  async some(max: number): Promise<Buffer> {
    while (this.#chunk.length === 0) {
      const next = await this.#chunks.next()
      if (next.done === true) throw new EndOfStream('stream ended')
      this.#chunk = next.value
    }
    const taken = this.#chunk.subarray(0, max)
    this.#chunk = this.#chunk.subarray(taken.length)
    return taken
  }

  /** Exactly `bytes`; the caller bounds it. Throws `EndOfStream`. */
  async exactly(bytes: number): Promise<Buffer> {
    if (bytes === 0) return Buffer.alloc(0)
    const first = await this.some(bytes)
    if (first.length === bytes) return first
    const parts = [first]
    let missing = bytes - first.length
    while (missing > 0) {
      const part = await this.some(missing)
      parts.push(part)
      missing -= part.length
    }
    return Buffer.concat(parts)
  }
}
