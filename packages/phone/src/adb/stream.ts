import { Duplex, type Writable } from 'node:stream'
import { Command } from './packet.ts'

const READ_BUFFER_BYTES = 256 * 1024

/** What a stream needs of the connection that carries it. */
export interface StreamLink {
  /** The peer's limit for one WRTE, in bytes. */
  readonly maxPayloadBytes: number
  /** Sends a packet whose payload is the concatenation of `parts`; they are not copied. */
  send(command: number, arg0: number, arg1: number, parts?: readonly Buffer[]): void
  /** The stream is closed: its id is free. */
  release(stream: AdbStream): void
  streamFailed(stream: AdbStream, error: Error): void
}

/**
 * One adb stream as a Node duplex. The protocol's flow control is one WRTE in flight per direction: a write is done
 * when its OKAY has come, and our OKAY goes out when the reader has room. What gathers while waiting goes out in one WRTE.
 *
 * adb has no half-close: `end()` sends what is left and closes both directions. When the peer closes, what it sent
 * before can still be read, then the readable side ends, and `hangup` is emitted; without a listener for it the stream
 * is destroyed.
 */
export class AdbStream extends Duplex {
  readonly localId: number
  #remoteId: number
  readonly #link: StreamLink
  #open = true
  #ackOwed = false
  #outgoing: Buffer[] = []
  #written: ((error?: Error | null) => void) | undefined

  constructor(link: StreamLink, ids: { local: number; remote: number }) {
    super({ readableHighWaterMark: READ_BUFFER_BYTES, writableHighWaterMark: link.maxPayloadBytes })
    this.#link = link
    this.localId = ids.local
    this.#remoteId = ids.remote
    this.on('error', (error) => link.streamFailed(this, error))
    this.once('finish', () => this.destroy())
  }

  get remoteId(): number {
    return this.#remoteId
  }

  /** The peer has answered our OPEN. */
  opened(remoteId: number): void {
    this.#remoteId = remoteId
  }

  /** A WRTE came. False when the peer had not waited for the OKAY of the one before. */
  receive(payload: Buffer): boolean {
    if (this.#ackOwed) return false
    this.#ackOwed = true
    // An empty push would leave the stream waiting for a read that nobody has reason to make.
    if (payload.length === 0 || this.push(payload)) this.#acknowledge()
    return true
  }

  /** An OKAY came: the WRTE in flight has arrived. */
  acknowledged(): void {
    if (this.#written === undefined) return
    if (this.#outgoing.length > 0) {
      this.#sendNext()
      return
    }
    const written = this.#written
    this.#written = undefined
    written()
  }

  /** A CLSE came. */
  hangUp(): void {
    this.#close()
    this.push(null)
    if (!this.emit('hangup')) this.destroy()
  }

  override _read(): void {
    this.#acknowledge()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#begin([chunk], done)
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    const parts = chunks.map(({ chunk }) => chunk)
    this.#begin(parts, done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#close()
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#close()
    this.#outgoing = []
    const written = this.#written
    this.#written = undefined
    if (written !== undefined) process.nextTick(written, error ?? new Error('adb stream closed'))
    done(error)
  }

  #begin(parts: Buffer[], done: (error?: Error | null) => void): void {
    this.#outgoing = parts.filter((part) => part.length > 0)
    // After the peer's CLSE nothing can be sent any more; the write stays undone until the stream is destroyed.
    this.#written = done
    if (this.#outgoing.length === 0) this.acknowledged()
    else this.#sendNext()
  }

  #sendNext(): void {
    if (!this.#open) return
    const parts: Buffer[] = []
    let room = this.#link.maxPayloadBytes
    while (room > 0) {
      const next = this.#outgoing[0]
      if (next === undefined) break
      if (next.length <= room) {
        parts.push(next)
        this.#outgoing.shift()
      } else {
        parts.push(next.subarray(0, room))
        this.#outgoing[0] = next.subarray(room)
      }
      room -= Math.min(room, next.length)
    }
    this.#link.send(Command.WRTE, this.localId, this.#remoteId, parts)
  }

  #acknowledge(): void {
    if (!this.#ackOwed || !this.#open) return
    this.#ackOwed = false
    this.#link.send(Command.OKAY, this.localId, this.#remoteId)
  }

  #close(): void {
    if (!this.#open) return
    this.#open = false
    this.#link.send(Command.CLSE, this.localId, this.#remoteId)
    this.#link.release(this)
  }
}

/** Writes and waits for room. False when the stream is gone, before or while waiting. */
export async function writeOrGone(stream: Duplex, chunk: Buffer): Promise<boolean> {
  if (stream.destroyed || stream.writableEnded) return false
  if (stream.write(chunk)) return true
  await drained(stream)
  return !stream.destroyed
}

/** Resolves when a stream whose `write` gave false takes more, or has closed. */
export async function drained(stream: Writable): Promise<void> {
  await new Promise<void>((resolve) => {
    const settle = (): void => {
      stream.off('drain', settle)
      stream.off('close', settle)
      resolve()
    }
    stream.on('drain', settle)
    stream.on('close', settle)
  })
}

/**
 * Gathers what is written in this turn of the event loop into one WRTE. A client's server writes each WRTE to its client
 * by itself, and the second of two small ones waits there for a delayed ACK: measured, 45 ms a file or command.
 */
export function gatherWrites(stream: AdbStream): void {
  if (stream.writableCorked > 0) return
  stream.cork()
  setImmediate(() => stream.uncork())
}
