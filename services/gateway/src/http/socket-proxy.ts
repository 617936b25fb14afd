import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { common } from '@cloudphone/runtime/problem'
import type { FastifyInstance } from 'fastify'
import { endToEnd } from '../domain/forwarding.ts'
import { limitKeyOf, type RateLimiter } from '../domain/rate-limit.ts'
import { problems } from '../errors.ts'
import type { GatewayTelemetry } from '../telemetry.ts'
import { writeProblem } from './bounds.ts'
import type { Upstream } from './upstream.ts'

interface SocketProxyOptions {
  readonly upstream: Upstream
  readonly limiter: RateLimiter
  readonly telemetry: GatewayTelemetry
  /** The caller's, whatever stands in front. */
  readonly addressOf: (request: IncomingMessage) => string
}

/**
 * Hands WebSockets of Socket.IO through to the notifications service, byte by byte: the token is checked there, when the
 * first packet brings it. Long polling is refused, since its requests would need to meet the same instance (decision 30).
 */
export function proxySockets(app: FastifyInstance, options: SocketProxyOptions): void {
  const open = new Set<Duplex>()
  app.server.on('upgrade', (request: IncomingMessage, caller: Duplex, head: Buffer) => {
    caller.on('error', () => caller.destroy())
    void handOver(request, caller, head, { ...options, open }).catch(() =>
      writeProblem(caller, common.service_unavailable({ service: 'notifications' })),
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
  { upstream, limiter, telemetry, addressOf, open }: SocketProxyOptions & { open: Set<Duplex> },
): Promise<void> {
  const url = URL.parse(request.url ?? '/', 'http://gateway')
  if (url?.pathname !== '/socket.io/' || url.searchParams.get('transport') !== 'websocket') {
    return writeProblem(caller, common.not_found({ method: 'WebSocket', path: url?.pathname ?? request.url }))
  }
  const address = addressOf(request)
  const verdict = await limiter.take(limitKeyOf(address), 'read')
  if (verdict?.allowed === false) {
    return writeProblem(caller, common.rate_limited({ retryAfterSeconds: verdict.resetSeconds }))
  }
  const line = await upstream.open('notifications').catch(() => undefined)
  if (line === undefined)
    return writeProblem(caller, common.service_unavailable({ service: 'notifications' }))
  const { socket: service, release } = line
  // Gone while the line was opened: its close has been told already.
  if (caller.destroyed) {
    service.destroy()
    return release()
  }
  open.add(caller).add(service)
  telemetry.socketOpened()
  const end = (): void => {
    caller.destroy()
    service.destroy()
    if (!open.delete(caller)) return
    open.delete(service)
    release()
    telemetry.socketClosed()
  }
  for (const socket of [caller, service]) socket.on('error', end).on('close', end)
  service.write(handshake(request, url, address))
  service.write(head)
  service.pipe(caller)
  caller.pipe(service)
}

/** The request as the service gets it. Made anew from parsed headers, so that no line of it is the caller's own. */
function handshake({ headers }: IncomingMessage, url: URL, address: string): string {
  const kept = Object.entries(endToEnd(headers)).filter(([name]) => !/^(x-forwarded-|forwarded$)/.test(name))
  const lines = [
    ...kept.flatMap(([name, value]) => [value].flat().map((one) => `${name}: ${one}`)),
    'connection: Upgrade',
    'upgrade: websocket',
    `x-forwarded-for: ${address}`,
  ]
  return `GET /socket.io/${url.search} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`
}
