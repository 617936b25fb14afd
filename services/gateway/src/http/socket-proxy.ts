import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ServiceName } from '@cloudphone/contracts/services'
import { AdbTunnel, tunnelTarget } from '@cloudphone/contracts/sockets'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { writeProblem } from '@cloudphone/runtime/socket-problem'
import type { FastifyInstance } from 'fastify'
import { endToEnd } from '../domain/forwarding.ts'
import { limitKeyOf } from '../domain/rate-limit.ts'
import { problems } from '../errors.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import { admitSocket, type DoorOptions } from './door.ts'
import type { Upstream } from './upstream.ts'

interface SocketProxyOptions {
  readonly upstream: Upstream
  readonly door: DoorOptions
  readonly telemetry: GatewayTelemetry
  /** The caller's, whatever stands in front. */
  readonly addressOf: (request: IncomingMessage) => string
}

/**
 * Hands WebSockets through, byte by byte: those of Socket.IO to the notifications service, which reads the token in the
 * first packet, and adb tunnels to the devices service, once their caller is known here as for any request. Long polling is
 * refused, since its requests would need to meet the same instance (decision 30).
 */
export function proxySockets(app: FastifyInstance, options: SocketProxyOptions): void {
  const open = new Set<Duplex>()
  app.server.on('upgrade', (request: IncomingMessage, caller: Duplex, head: Buffer) => {
    caller.on('error', () => caller.destroy())
    void handOver(request, caller, head, { ...options, open }).catch((error: unknown) =>
      writeProblem(
        caller,
        error instanceof ProblemError ? error : common.service_unavailable({ service: 'gateway' }),
      ),
    )
  })
  // Upgraded connections are no longer the HTTP server's: its close would wait for them for ever.
  app.addHook('preClose', async () => {
    for (const socket of open) socket.destroy()
  })
  app.all('/socket.io/', async () => {
    throw problems.websocket_only()
  })
}

async function handOver(
  request: IncomingMessage,
  caller: Duplex,
  head: Buffer,
  { upstream, door, telemetry, addressOf, open }: SocketProxyOptions & { open: Set<Duplex> },
): Promise<void> {
  const address = addressOf(request)
  const { service, path } = await admit(request, address, door)
  const { socket, release } = await upstream.open(service)
  // Gone while the line was opened: its close has been told already.
  if (caller.destroyed) {
    socket.destroy()
    return release()
  }
  open.add(caller).add(socket)
  telemetry.socketOpened()
  const end = (): void => {
    caller.destroy()
    socket.destroy()
    if (!open.delete(caller)) return
    open.delete(socket)
    release()
    telemetry.socketClosed()
  }
  for (const one of [caller, socket]) one.on('error', end).on('close', end)
  socket.write(handshake(request, path, address))
  socket.write(head)
  socket.pipe(caller)
  caller.pipe(socket)
}

/** Who serves a WebSocket, and under which path, once its caller may come in. @throws ProblemError for all others. */
async function admit(
  request: IncomingMessage,
  address: string,
  door: DoorOptions,
): Promise<{ service: ServiceName; path: string }> {
  const url = URL.parse(request.url ?? '/', 'http://gateway')
  const path = url?.pathname ?? request.url ?? ''
  if (path === '/socket.io/' && url?.searchParams.get('transport') === 'websocket') {
    const verdict = await door.limiter.take(limitKeyOf(address), 'read')
    if (verdict?.allowed === false) {
      throw common.rate_limited({ retryAfterSeconds: verdict.resetSeconds })
    }
    return { service: 'notifications', path: path + url.search }
  }
  const deviceId = tunnelTarget(path)
  if (deviceId === undefined) throw common.not_found({ method: 'WebSocket', path })
  await admitSocket({ headers: request.headers, ip: address }, door)
  return { service: AdbTunnel.service, path: AdbTunnel.pathFor(deviceId) }
}

/** The request as the service gets it. Made anew from parsed headers, so that no line of it is the caller's own. */
function handshake({ headers }: IncomingMessage, path: string, address: string): string {
  const kept = Object.entries(endToEnd(headers)).filter(([name]) => !/^(x-forwarded-|forwarded$)/.test(name))
  const lines = [
    ...kept.flatMap(([name, value]) => [value].flat().map((one) => `${name}: ${one}`)),
    'connection: Upgrade',
    'upgrade: websocket',
    `x-forwarded-for: ${address}`,
  ]
  return `GET ${path} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`
}
