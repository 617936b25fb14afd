import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import {
  AdbProtocolError,
  AuthKind,
  Command,
  checksum,
  encodeHeader,
  MAX_PAYLOAD_BYTES,
  MIN_PAYLOAD_BYTES,
  type Packet,
  PacketReader,
  VERSION_MIN,
  VERSION_SKIP_CHECKSUM,
} from './packet.ts'
import { type AdbPublicKey, parseAdbPublicKey, verifyToken } from './public-key.ts'
import { AdbStream, type StreamLink } from './stream.ts'

const TOKEN_BYTES = 20
/** A CNXN banner or a public key with a comment fits in 2 KiB; a stranger gets no more than this set aside. */
const STRANGER_PAYLOAD_BYTES = 16 * 1024
const MAX_STREAMS = 256
/** adb tries each of its keys in turn; nobody has this many. */
const MAX_SIGNATURES = 64
/** A peer that sends but does not read makes answers pile up; above this we stop reading from it. */
const MAX_UNSENT_BYTES = 4 * 1024 * 1024
const EMPTY: readonly Buffer[] = []

export interface ConnectionLimits {
  /** For a peer that has not shown any key. */
  readonly handshakeMs: number
  /** For a peer whose key is not on the list and that waits as `unauthorized`. */
  readonly unauthorizedMs: number
}

/** Takes over an opened stream. Never throws. */
export type ServeStream = (stream: AdbStream) => void

/** What a connection needs of its daemon. */
export interface ConnectionDaemon {
  readonly limits: ConnectionLimits
  /** The system identity string that CNXN carries. */
  banner(): string
  keys(): readonly AdbPublicKey[]
  /** What serves `service`; undefined when there is no such service or nobody listens. */
  findService(service: string, connection: AdbConnection): Promise<ServeStream | undefined>
  closed(connection: AdbConnection): void
  log(event: string, fields: Record<string, unknown>): void
}

type Phase = 'greeting' | 'challenged' | 'unauthorized' | 'online' | 'closed'

/** One client of a phone's adb daemon, from the TCP accept to the end. */
export class AdbConnection implements StreamLink {
  readonly peer: string
  readonly #socket: Socket
  readonly #daemon: ConnectionDaemon
  readonly #streams = new Map<number, AdbStream>()
  /** Streams that we opened and the peer has not answered yet. */
  readonly #opening = new Map<number, (accepted: boolean) => void>()
  #phase: Phase = 'greeting'
  #version = VERSION_MIN
  #maxPayloadBytes = MIN_PAYLOAD_BYTES
  #token = Buffer.alloc(0)
  #signatures = 0
  #keyFingerprint: string | undefined
  #offeredFingerprint: string | undefined
  #nextId = 1
  #deadline: NodeJS.Timeout | undefined
  /** OPENs that wait for their service to be found. */
  #finding = 0
  /** Rises with each CNXN, so that an OPEN of before it is not answered after it. */
  #session = 0

  constructor(socket: Socket, daemon: ConnectionDaemon) {
    this.#socket = socket
    this.#daemon = daemon
    this.peer = `${socket.remoteAddress}:${socket.remotePort}`
    const reader = new PacketReader({
      maxPayloadBytes: () => (this.#phase === 'online' ? MAX_PAYLOAD_BYTES : STRANGER_PAYLOAD_BYTES),
      onPacket: (packet) => this.#handle(packet),
    })
    this.#allow(daemon.limits.handshakeMs)
    socket.setNoDelay(true)
    socket.on('data', (chunk) => this.#read(reader, chunk))
    socket.on('drain', () => socket.resume())
    socket.on('error', (error) => daemon.log('adb.socket_error', { peer: this.peer, error: error.message }))
    socket.on('end', () => this.close('peer ended'))
    socket.on('close', () => this.close('peer closed'))
  }

  /** The largest WRTE payload that both sides take, in bytes. */
  get maxPayloadBytes(): number {
    return this.#maxPayloadBytes
  }

  get online(): boolean {
    return this.#phase === 'online'
  }

  /** The key that authenticated this connection. */
  get keyFingerprint(): string | undefined {
    return this.#keyFingerprint
  }

  /** The key that the peer asked us to accept, never proved. */
  get offeredFingerprint(): string | undefined {
    return this.#offeredFingerprint
  }

  /** Cuts the connection and everything that runs on it. Idempotent. */
  close(reason: string): void {
    if (this.#phase === 'closed') return
    this.#phase = 'closed'
    clearTimeout(this.#deadline)
    this.#socket.destroy()
    this.#dropStreams()
    this.#daemon.closed(this)
    this.#daemon.log('adb.closed', { peer: this.peer, reason })
  }

  /** Opens a stream from the phone to the host (for `adb reverse`). Undefined when the host refuses or is gone. */
  async openToHost(service: string): Promise<AdbStream | undefined> {
    if (this.#phase !== 'online' || this.#streams.size >= MAX_STREAMS) return undefined
    const stream = this.#newStream(0)
    const accepted = await new Promise<boolean>((resolve) => {
      this.#opening.set(stream.localId, resolve)
      this.send(Command.OPEN, stream.localId, 0, [Buffer.from(`${service}\0`)])
    })
    return accepted ? stream : undefined
  }

  send(command: number, arg0: number, arg1: number, parts: readonly Buffer[] = EMPTY): void {
    if (this.#phase === 'closed') return
    let bytes = 0
    for (const part of parts) bytes += part.length
    // Before the versions are agreed on, and to old peers, the checksum counts.
    const summed = this.#phase !== 'online' || this.#version < VERSION_SKIP_CHECKSUM
    const header = encodeHeader(command, arg0, arg1, { bytes, checksum: summed ? checksum(parts) : 0 })
    if (parts.length === 0) {
      this.#socket.write(header)
      return
    }
    this.#socket.cork()
    this.#socket.write(header)
    for (const part of parts) this.#socket.write(part)
    this.#socket.uncork()
  }

  release(stream: AdbStream): void {
    this.#streams.delete(stream.localId)
  }

  streamFailed(stream: AdbStream, error: Error): void {
    this.#daemon.log('adb.stream_failed', { peer: this.peer, stream: stream.localId, error: error.message })
  }

  #read(reader: PacketReader, chunk: Buffer): void {
    try {
      reader.push(chunk)
    } catch (error) {
      if (!(error instanceof AdbProtocolError)) throw error
      this.close(error.message)
      return
    }
    if (this.#socket.writableLength > MAX_UNSENT_BYTES) this.#socket.pause()
  }

  #handle(packet: Packet): void {
    if (this.#phase === 'closed') return
    const version = packet.command === Command.CNXN ? packet.arg0 : this.#version
    if (version < VERSION_SKIP_CHECKSUM && packet.checksum !== checksum([packet.payload])) {
      throw new AdbProtocolError('payload checksum differs')
    }
    if (packet.command === Command.CNXN) this.#greet(packet)
    else if (packet.command === Command.AUTH) this.#authenticate(packet)
    else if (this.#phase === 'online') this.#dispatch(packet)
    else
      throw new AdbProtocolError(
        `command 0x${packet.command.toString(16)} before the connection is authorised`,
      )
  }

  /** CNXN starts a connection, and starts it over when it comes again: nothing of the old one stays, rights included. */
  #greet(packet: Packet): void {
    if (packet.arg0 < VERSION_MIN)
      throw new AdbProtocolError(`protocol version 0x${packet.arg0.toString(16)} is too old`)
    if (packet.arg1 < MIN_PAYLOAD_BYTES)
      throw new AdbProtocolError(`peer takes only ${packet.arg1} bytes of payload`)
    this.#dropStreams()
    this.#session += 1
    this.#keyFingerprint = undefined
    if (this.#phase === 'online') this.#allow(this.#daemon.limits.handshakeMs)
    this.#phase = 'challenged'
    this.#version = Math.min(packet.arg0, VERSION_SKIP_CHECKSUM)
    this.#maxPayloadBytes = Math.min(packet.arg1, MAX_PAYLOAD_BYTES)
    this.#challenge()
  }

  #challenge(): void {
    this.#token = randomBytes(TOKEN_BYTES)
    this.send(Command.AUTH, AuthKind.TOKEN, 0, [this.#token])
  }

  #authenticate(packet: Packet): void {
    if (this.#phase === 'online') return
    if (this.#phase === 'greeting') throw new AdbProtocolError('AUTH before CNXN')
    if (packet.arg0 === AuthKind.SIGNATURE) this.#checkSignature(packet.payload)
    else if (packet.arg0 === AuthKind.RSAPUBLICKEY) this.#offerKey(packet.payload)
    else throw new AdbProtocolError(`AUTH of kind ${packet.arg0}`)
  }

  #checkSignature(signature: Buffer): void {
    this.#signatures += 1
    if (this.#signatures > MAX_SIGNATURES) throw new AdbProtocolError('too many signatures')
    const token = this.#token
    const key = this.#daemon.keys().find((candidate) => verifyToken(candidate, token, signature))
    if (key === undefined) {
      this.#challenge()
      return
    }
    clearTimeout(this.#deadline)
    this.#keyFingerprint = key.fingerprint
    // The answer still carries a checksum; `online` ends that.
    this.send(Command.CNXN, VERSION_SKIP_CHECKSUM, MAX_PAYLOAD_BYTES, [Buffer.from(this.#daemon.banner())])
    this.#phase = 'online'
    this.#signatures = 0
    this.#daemon.log('adb.online', { peer: this.peer, key: key.fingerprint })
  }

  /** There is no user to ask, so the peer waits as `unauthorized` until the key is listed or its time is over. */
  #offerKey(payload: Buffer): void {
    try {
      this.#offeredFingerprint = parseAdbPublicKey(payload.toString('latin1')).fingerprint
    } catch (error) {
      throw new AdbProtocolError(error instanceof Error ? error.message : 'unreadable public key')
    }
    if (this.#phase === 'unauthorized') return
    this.#phase = 'unauthorized'
    this.#allow(this.#daemon.limits.unauthorizedMs)
    this.#daemon.log('adb.unauthorized', { peer: this.peer, key: this.#offeredFingerprint })
  }

  #dispatch(packet: Packet): void {
    const stream = this.#streams.get(packet.arg1)
    switch (packet.command) {
      case Command.OPEN:
        this.#open(packet)
        break
      case Command.OKAY:
        this.#okay(stream, packet)
        break
      case Command.CLSE:
        this.#clse(stream, packet.arg1)
        break
      case Command.WRTE:
        // A WRTE for a stream that we have just closed crossed our CLSE on the wire; it is of no interest.
        if (stream?.receive(packet.payload) === false) {
          throw new AdbProtocolError('WRTE before the OKAY of the last one')
        }
        break
      default:
        throw new AdbProtocolError(`unknown command 0x${packet.command.toString(16)}`)
    }
  }

  #open(packet: Packet): void {
    if (packet.arg0 === 0) throw new AdbProtocolError('OPEN with stream id 0')
    if (packet.arg1 !== 0) throw new AdbProtocolError('OPEN with delayed acknowledgements, not offered')
    const end = packet.payload.at(-1) === 0 ? packet.payload.length - 1 : packet.payload.length
    const service = packet.payload.toString('utf8', 0, end)
    if (this.#streams.size + this.#finding >= MAX_STREAMS) {
      this.send(Command.CLSE, 0, packet.arg0)
      return
    }
    this.#finding += 1
    const session = this.#session
    void this.#daemon
      .findService(service, this)
      .catch((error: unknown) => {
        this.#daemon.log('adb.service_failed', { peer: this.peer, service, error: String(error) })
        return undefined
      })
      .then((serve) => {
        this.#finding -= 1
        if (this.#session === session) this.#answerOpen(serve, packet.arg0)
      })
  }

  #answerOpen(serve: ServeStream | undefined, remoteId: number): void {
    if (this.#phase !== 'online') return
    if (serve === undefined) {
      this.send(Command.CLSE, 0, remoteId)
      return
    }
    const stream = this.#newStream(remoteId)
    this.send(Command.OKAY, stream.localId, remoteId)
    serve(stream)
  }

  #okay(stream: AdbStream | undefined, packet: Packet): void {
    const answer = this.#opening.get(packet.arg1)
    if (answer === undefined) {
      stream?.acknowledged()
      return
    }
    this.#opening.delete(packet.arg1)
    stream?.opened(packet.arg0)
    answer(true)
  }

  #clse(stream: AdbStream | undefined, localId: number): void {
    const answer = this.#opening.get(localId)
    this.#opening.delete(localId)
    answer?.(false)
    if (answer === undefined) stream?.hangUp()
    else stream?.destroy()
  }

  #newStream(remoteId: number): AdbStream {
    const stream = new AdbStream(this, { local: this.#nextId, remote: remoteId })
    this.#streams.set(this.#nextId, stream)
    do this.#nextId = this.#nextId >= 0xffffffff ? 1 : this.#nextId + 1
    while (this.#streams.has(this.#nextId))
    return stream
  }

  #dropStreams(): void {
    for (const answer of this.#opening.values()) answer(false)
    this.#opening.clear()
    for (const stream of [...this.#streams.values()]) stream.destroy()
    this.#streams.clear()
  }

  #allow(ms: number): void {
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.close('not authorised in time'), ms)
    this.#deadline.unref()
  }
}
