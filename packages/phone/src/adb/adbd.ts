import { createServer, type Server, type Socket } from 'node:net'
import type { AndroidSystem } from '../android/android.ts'
import {
  AdbConnection,
  type ConnectionDaemon,
  type ConnectionLimits,
  type ServeStream,
} from './connection.ts'
import { isPhoneAddress, type PhoneNetwork } from './phone-network.ts'
import type { AdbPublicKey } from './public-key.ts'
import { ReverseForwards } from './reverse-service.ts'
import { parseShellService, serveShell } from './shell-service.ts'
import type { AdbStream } from './stream.ts'
import { serveSync } from './sync-service.ts'

/** Only what works here; a client leaves alone what is not named. */
const FEATURES = ['shell_v2', 'cmd', 'stat_v2', 'ls_v2', 'fixed_push_mkdir', 'sendrecv_v2']
const MAX_CONNECTIONS = 64
/** Connections that have not authenticated; more are refused, so that strangers cannot fill the phone up. */
const MAX_STRANGERS = 16
const DEFAULT_LIMITS: ConnectionLimits = { handshakeMs: 10_000, unauthorizedMs: 300_000 }

/** What a seeded fault does to one incoming connection. */
export interface Admission {
  readonly kind: 'refuse' | 'slow' | 'hang' | 'flap'
  readonly delayMs: number
}

export interface AdbdOptions {
  readonly host: '127.0.0.1'
  /** 0 takes a free port. */
  readonly port: number
  readonly android: AndroidSystem
  readonly network: PhoneNetwork
  readonly keys: readonly AdbPublicKey[]
  readonly power: (action: 'reboot') => void
  readonly log: (event: string, fields: Record<string, unknown>) => void
  /** Asked for each connection; undefined lets it in unharmed. */
  readonly admit?: () => Promise<Admission | undefined>
  readonly limits?: ConnectionLimits
}

/** The adb daemon of one running phone: one listening socket, and what its connections need. */
export class Adbd implements ConnectionDaemon {
  readonly limits: ConnectionLimits
  readonly #options: AdbdOptions
  readonly #server: Server
  readonly #connections = new Set<AdbConnection>()
  /** Accepted sockets that a fault keeps from the daemon. */
  readonly #withheld = new Set<Socket>()
  readonly #reverse = new Map<AdbConnection, ReverseForwards>()
  #keys: readonly AdbPublicKey[]

  private constructor(options: AdbdOptions) {
    this.#options = options
    this.#keys = options.keys
    this.limits = options.limits ?? DEFAULT_LIMITS
    this.#server = createServer((socket) => this.#accept(socket))
    this.#server.on('error', (error) => this.log('adb.server_error', { error: error.message }))
  }

  /** Listens. Rejects with the system's error, such as EADDRINUSE. */
  static async listen(options: AdbdOptions): Promise<Adbd> {
    const adbd = new Adbd(options)
    await new Promise<void>((resolve, reject) => {
      adbd.#server.once('error', reject)
      adbd.#server.listen({ host: options.host, port: options.port, backlog: 64 }, () => {
        adbd.#server.off('error', reject)
        resolve()
      })
    })
    return adbd
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : this.#options.port
  }

  /** Connections that have authenticated. */
  get onlineConnections(): number {
    let online = 0
    for (const connection of this.#connections) if (connection.online) online += 1
    return online
  }

  /**
   * Replaces the list of accepted keys. Connections of a key that is gone are cut before this returns. Those that wait
   * with a key that is on the list now are cut too: a client shows its key but once, and proves it when it comes back.
   */
  setKeys(keys: readonly AdbPublicKey[]): void {
    this.#keys = keys
    const listed = new Set(keys.map((key) => key.fingerprint))
    for (const connection of [...this.#connections]) {
      if (connection.keyFingerprint !== undefined && !listed.has(connection.keyFingerprint)) {
        connection.close('key removed')
      } else if (!connection.online && listed.has(connection.offeredFingerprint ?? '')) {
        connection.close('key now accepted')
      }
    }
  }

  /** Stops listening and cuts every connection. Resolves when the port is free. Idempotent. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    for (const socket of this.#withheld) socket.destroy()
    for (const connection of [...this.#connections]) connection.close('phone stopped')
    await closed
  }

  banner(): string {
    const properties = ['name', 'model', 'device'].map((name) => {
      const key = `ro.product.${name}`
      return `${key}=${this.#options.android.getProp(key).replaceAll(/[;=]/g, '_')};`
    })
    return `device::${properties.join('')}features=${FEATURES.join(',')}`
  }

  keys(): readonly AdbPublicKey[] {
    return this.#keys
  }

  log(event: string, fields: Record<string, unknown>): void {
    this.#options.log(event, fields)
  }

  closed(connection: AdbConnection): void {
    this.#connections.delete(connection)
    this.#reverse.get(connection)?.close()
    this.#reverse.delete(connection)
  }

  async findService(service: string, connection: AdbConnection): Promise<ServeStream | undefined> {
    const { android, network } = this.#options
    const log = (event: string, fields: Record<string, unknown>): void => this.log(event, fields)
    const shell = parseShellService(service)
    if (shell !== undefined) return (stream) => void serveShell(shell, stream, { android, log })
    if (service === 'sync:') return (stream) => void serveSync(stream, { fs: android.fs, log })
    if (service.startsWith('reverse:')) {
      const request = service.slice('reverse:'.length)
      return (stream) => this.#forwardsOf(connection).serve(request, stream)
    }
    const text = PLAIN_ANSWERS.get(service)
    if (text !== undefined) return (stream) => say(stream, text)
    if (service.startsWith('reboot:'))
      return (stream) => this.#reboot(service.slice('reboot:'.length), stream)
    return isPhoneAddress(service) ? await joinPhoneSocket(network, service) : undefined
  }

  #forwardsOf(connection: AdbConnection): ReverseForwards {
    const known = this.#reverse.get(connection)
    if (known !== undefined) return known
    const forwards = new ReverseForwards(this.#options.network, connection)
    this.#reverse.set(connection, forwards)
    return forwards
  }

  #reboot(target: string, stream: AdbStream): void {
    if (target === '') {
      // Like on a real phone the stream stays open; the reboot ends it together with the connection.
      this.#options.power('reboot')
      return
    }
    say(stream, `reboot: a simulated phone has no '${target}'\n`)
  }

  #accept(socket: Socket): void {
    // Until a connection takes the socket over, an error on it concerns nobody; 'close' follows it.
    const reset = (error: Error): void => this.log('adb.socket_error', { error: error.message })
    socket.on('error', reset)
    const strangers = this.#connections.size - this.onlineConnections + this.#withheld.size
    if (this.#connections.size >= MAX_CONNECTIONS || strangers >= MAX_STRANGERS) {
      socket.destroy()
      return
    }
    const { admit } = this.#options
    if (admit === undefined) {
      this.#take(socket)
      return
    }
    this.#withheld.add(socket)
    socket.once('close', () => this.#withheld.delete(socket))
    void admit().then(
      (admission) => this.#admit(socket, admission),
      (error: unknown) => {
        this.log('adb.admit_failed', { error: String(error) })
        socket.destroy()
      },
    )
  }

  #admit(socket: Socket, admission: Admission | undefined): void {
    if (socket.destroyed || admission?.kind === 'hang') return
    if (admission?.kind === 'refuse') {
      socket.destroy()
      return
    }
    if (admission?.kind === 'slow') {
      const timer = setTimeout(() => this.#take(socket), admission.delayMs)
      socket.once('close', () => clearTimeout(timer))
      return
    }
    this.#take(socket)
    if (admission?.kind === 'flap') {
      const timer = setTimeout(() => socket.destroy(), admission.delayMs)
      socket.once('close', () => clearTimeout(timer))
    }
  }

  #take(socket: Socket): void {
    this.#withheld.delete(socket)
    if (socket.destroyed || !this.#server.listening) {
      socket.destroy()
      return
    }
    this.#connections.add(new AdbConnection(socket, this))
  }
}

/** Android's own answers of a production build. */
const PLAIN_ANSWERS: ReadonlyMap<string, string> = new Map([
  ['root:', 'adbd cannot run as root in production builds\n'],
  ['unroot:', 'adbd not running as root\n'],
  ['remount:', 'Not running as root. Try "adb root" first.\n'],
])

function say(stream: AdbStream, text: string): void {
  stream.resume()
  stream.end(text)
}

/** Connects an adb stream with a socket inside the phone (`adb forward`). Undefined: connection refused. */
async function joinPhoneSocket(network: PhoneNetwork, address: string): Promise<ServeStream | undefined> {
  const inside = await network.connect(address)
  if (inside === undefined) return undefined
  return (stream) => {
    stream.pipe(inside)
    inside.pipe(stream)
    let hungUp = false
    inside.once('error', () => stream.destroy())
    inside.once('close', () => (hungUp ? stream.destroy() : stream.end()))
    // What the peer sent before it closed is delivered inside first.
    stream.once('hangup', () => {
      hungUp = true
      inside.once('finish', () => stream.destroy())
    })
    stream.once('close', () => inside.destroy())
  }
}
