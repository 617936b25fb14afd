import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'

/** A door between a client and a server on this machine, for tests of what networks do. */
export interface TcpProxy {
  readonly port: number
  /** From now on swallows every byte both ways and says nothing: as when a cable is cut or a firewall forgets. */
  silence(): void
  /** New connections pass again; those that were silenced stay silent. */
  heal(): void
  /** From now on each piece is passed on so many milliseconds after it came, in its order; asked anew for each. */
  delay(nextMs: () => number): void
  close(): Promise<void>
}

/** Where a proxy leads: a port of this machine, or a unix socket. */
export type ProxyTarget = number | { readonly path: string }

/** Opens a proxy to a server of this machine. */
export async function openTcpProxy(target: ProxyTarget): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  let silent = false
  let nextMs = () => 0
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    // A lost connection is what these tests are about; its end closes the other one below.
    socket.on('error', () => socket.destroy())
    socket.once('close', () => sockets.delete(socket))
  }
  const pass = (from: Socket, to: Socket): void => {
    const late: Buffer[] = []
    let freeAtMs = 0
    const writeNext = (): void => {
      // Whichever timer comes first: what goes out is what came first.
      const bytes = late.shift()
      if (bytes !== undefined && to.writable && !muted.has(from)) to.write(bytes)
    }
    from.on('data', (bytes) => {
      if (silent || muted.has(from)) return
      const nowMs = performance.now()
      freeAtMs = Math.max(freeAtMs, nowMs + nextMs())
      late.push(bytes)
      if (freeAtMs <= nowMs) writeNext()
      else setTimeout(writeNext, freeAtMs - nowMs)
    })
  }
  const server = createServer((near) => {
    const far =
      typeof target === 'number'
        ? createConnection({ host: '127.0.0.1', port: target })
        : createConnection({ path: target.path })
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      keep(from)
      pass(from, to)
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
    delay(next) {
      nextMs = next
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
