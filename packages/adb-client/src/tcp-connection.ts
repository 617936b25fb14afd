import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { type AdbDaemonConnection, AdbPacket, AdbPacketHeader, type AdbPacketInit } from '@yume-chan/adb'
import {
  type Consumable,
  type ReadableStream,
  StructDeserializeStream,
  WritableStream,
} from '@yume-chan/stream-extra'

/** A TCP connection to an adbd that carries adb's packets. */
export interface TcpConnection {
  readonly connection: AdbDaemonConnection
  readonly socket: Socket
}

/**
 * Connects to an adbd.
 * @throws what the socket says (ECONNREFUSED ...), or the signal's reason.
 */
export async function openTcp(options: {
  host: string
  port: number
  signal?: AbortSignal
}): Promise<TcpConnection> {
  const socket = connect({ host: options.host, port: options.port, noDelay: true })
  try {
    await once(socket, 'connect', options.signal === undefined ? {} : { signal: options.signal })
  } catch (error) {
    socket.destroy()
    throw options.signal?.aborted ? options.signal.reason : error
  }
  // Later errors reach the readers through the streams; without a listener they would end the process.
  socket.on('error', () => socket.destroy())
  const { readable } = Duplex.toWeb(socket)
  return {
    socket,
    connection: {
      // Node's stream and the library's are the same at run time; only their types do not know each other.
      readable: (readable as unknown as ReadableStream<Uint8Array>).pipeThrough(
        new StructDeserializeStream(AdbPacket),
      ),
      writable: new WritableStream<Consumable<AdbPacketInit>>({
        write: (consumable) => {
          // The library waits for it only after a write that succeeded: of one that failed, nobody would hear, and a
          // rejection that nobody hears ends the process.
          consumable.consumed.catch(() => undefined)
          return consumable.tryConsume((packet) => writePacket(socket, packet))
        },
        close: () => void socket.end(),
        abort: () => void socket.destroy(),
      }),
    },
  }
}

/** Header and payload leave in one segment; resolves when the socket has taken them, which is the back-pressure. */
function writePacket(socket: Socket, packet: AdbPacketInit): Promise<void> {
  const header = AdbPacketHeader.serialize({ ...packet, payloadLength: packet.payload.length })
  return new Promise((resolve, reject) => {
    socket.cork()
    socket.write(header)
    socket.write(packet.payload, (error) => (error ? reject(error) : resolve()))
    socket.uncork()
  })
}
