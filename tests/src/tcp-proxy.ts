import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'

/** A door between a client and a server on this machine, for tests of what networks do. */
export interface TcpProxy {
  readonly port: number
  /** From now on swallows every byte both ways and says nothing: as when a cable is cut or a firewall forgets. */
  silence(): void
  /** New connections pass again; those that were silenced stay silent. */
  heal(): void
  close(): Promise<void>
}

/** Opens a proxy to a port of this machine. */
export async function openTcpProxy(targetPort: number): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  let silent = false
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    // A lost connection is what these tests are about; its end closes the other one below.
    socket.on('error', () => socket.destroy())
    socket.once('close', () => sockets.delete(socket))
  }
  const server = createServer((near) => {
    const far = createConnection({ host: '127.0.0.1', port: targetPort })
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      keep(from)
      from.on('data', (bytes) => silent || muted.has(from) || to.write(bytes))
      from.once('close', () => muted.has(from) || to.destroy())
    }
  })
  const muted = new WeakSet<Socket>()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (typeof address !== 'object' || address === null) throw new Error('the proxy has no port')
  return {
    port: address.port,
    silence() {
      silent = true
      for (const socket of sockets) muted.add(socket)
    },
    heal() {
      silent = false
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
