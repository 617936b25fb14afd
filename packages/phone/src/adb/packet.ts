/* The packets of the adb wire protocol, as Android's `protocol.txt` describes them:
 * 24 bytes of header (command, arg0, arg1, payload length, payload checksum, command ^ 0xffffffff; little endian), then the payload.
 */

export const Command = {
  CNXN: 0x4e584e43,
  AUTH: 0x48545541,
  OPEN: 0x4e45504f,
  OKAY: 0x59414b4f,
  CLSE: 0x45534c43,
  WRTE: 0x45545257,
} as const

/** `arg0` of an AUTH packet. */
export const AuthKind = { TOKEN: 1, SIGNATURE: 2, RSAPUBLICKEY: 3 } as const

export const VERSION_MIN = 0x01000000
/** From this version on the checksum of a payload is neither made nor looked at. */
export const VERSION_SKIP_CHECKSUM = 0x01000001

/** What the protocol's first version allowed; no peer may ask for less. */
export const MIN_PAYLOAD_BYTES = 4096
export const MAX_PAYLOAD_BYTES = 1024 * 1024

const HEADER_BYTES = 24

export interface Packet {
  readonly command: number
  readonly arg0: number
  readonly arg1: number
  readonly checksum: number
  readonly payload: Buffer
}

/** Bytes that are no adb packet, or a packet that is not allowed here. The connection must be closed. */
export class AdbProtocolError extends Error {
  override readonly name = 'AdbProtocolError'
}

/** The sum of all bytes, modulo 2^32 (protocol.txt calls it crc32, which it is not). */
export function checksum(parts: readonly Uint8Array[]): number {
  let sum = 0
  for (const part of parts) {
    for (const byte of part) sum = (sum + byte) >>> 0
  }
  return sum
}

/** The header of a packet whose payload is `payloadBytes` long. */
export function encodeHeader(
  command: number,
  arg0: number,
  arg1: number,
  payload: { readonly bytes: number; readonly checksum: number },
): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES)
  header.writeUInt32LE(command, 0)
  header.writeUInt32LE(arg0, 4)
  header.writeUInt32LE(arg1, 8)
  header.writeUInt32LE(payload.bytes, 12)
  header.writeUInt32LE(payload.checksum, 16)
  header.writeUInt32LE((command ^ 0xffffffff) >>> 0, 20)
  return header
}

/** A whole packet in one buffer, with its checksum. */
export function encodePacket(
  command: number,
  arg0: number,
  arg1: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const about = { bytes: payload.length, checksum: checksum([payload]) }
  return Buffer.concat([encodeHeader(command, arg0, arg1, about), payload])
}

/**
 * Cuts a byte stream into packets. A payload that lies whole in one chunk is handed on as a view of it; one that
 * spans chunks is copied once. `maxPayloadBytes` is asked for each header, so that it can be small until the peer
 * has proved who it is: a header alone must never make us set a megabyte aside for a stranger.
 */
export class PacketReader {
  readonly #maxPayloadBytes: () => number
  readonly #onPacket: (packet: Packet) => void
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerFilled = 0
  #payload: Buffer | undefined
  #payloadFilled = 0

  constructor(options: { maxPayloadBytes: () => number; onPacket: (packet: Packet) => void }) {
    this.#maxPayloadBytes = options.maxPayloadBytes
    this.#onPacket = options.onPacket
  }

  /** Takes the next bytes and calls back for each packet they complete. Throws `AdbProtocolError`. */
  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#payload !== undefined) at = this.#fillPayload(this.#payload, chunk, at)
      else if (this.#headerFilled < HEADER_BYTES) at = this.#fillHeader(chunk, at)
      else at = this.#beginPayload(chunk, at)
    }
  }

  #fillHeader(chunk: Buffer, at: number): number {
    const taken = Math.min(HEADER_BYTES - this.#headerFilled, chunk.length - at)
    chunk.copy(this.#header, this.#headerFilled, at, at + taken)
    this.#headerFilled += taken
    if (this.#headerFilled === HEADER_BYTES) {
      this.#check()
      if (this.#header.readUInt32LE(12) === 0) this.#emit(Buffer.alloc(0))
    }
    return at + taken
  }

  #check(): void {
    const command = this.#header.readUInt32LE(0)
    if (this.#header.readUInt32LE(20) !== (command ^ 0xffffffff) >>> 0) {
      throw new AdbProtocolError(`packet header with command 0x${command.toString(16)} has a wrong magic`)
    }
    const bytes = this.#header.readUInt32LE(12)
    const allowed = this.#maxPayloadBytes()
    if (bytes > allowed)
      throw new AdbProtocolError(`payload of ${bytes} bytes, at most ${allowed} are allowed here`)
  }

  #beginPayload(chunk: Buffer, at: number): number {
    const bytes = this.#header.readUInt32LE(12)
    if (chunk.length - at >= bytes) {
      this.#emit(chunk.subarray(at, at + bytes))
      return at + bytes
    }
    this.#payload = Buffer.allocUnsafeSlow(bytes)
    this.#payloadFilled = 0
    return at
  }

  #fillPayload(payload: Buffer, chunk: Buffer, at: number): number {
    const taken = Math.min(payload.length - this.#payloadFilled, chunk.length - at)
    chunk.copy(payload, this.#payloadFilled, at, at + taken)
    this.#payloadFilled += taken
    if (this.#payloadFilled === payload.length) this.#emit(payload)
    return at + taken
  }

  #emit(payload: Buffer): void {
    this.#headerFilled = 0
    this.#payload = undefined
    this.#onPacket({
      command: this.#header.readUInt32LE(0),
      arg0: this.#header.readUInt32LE(4),
      arg1: this.#header.readUInt32LE(8),
      checksum: this.#header.readUInt32LE(16),
      payload,
    })
  }
}
