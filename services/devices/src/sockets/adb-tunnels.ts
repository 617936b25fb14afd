import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { may } from '@cloudphone/contracts/access'
import type { DeviceId } from '@cloudphone/contracts/id'
import { AdbTunnel, mustLeaveCode, tunnelTarget } from '@cloudphone/contracts/sockets'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { inScope } from '@cloudphone/runtime/request-scope'
import { writeProblem } from '@cloudphone/runtime/socket-problem'
import type { TokenVerifier } from '@cloudphone/runtime/tokens'
import type { FastifyInstance } from 'fastify'
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws'
import type { TunnelService } from '../domain/tunnel-service.ts'
import type { Visit } from '../domain/visits.ts'

/** adb sends 1 MiB at most, and its header. */
const MESSAGE_LIMIT_BYTES = 2 * 1024 * 1024
const CONNECT_TIMEOUT_MS = 5_000
const FAREWELL_MS = 2_000

/**
 * Serves adb tunnels: a WebSocket for each connection of somebody's adb, to the adb port of the phone, for as long as he may
 * use the phone. What goes through is adb's own protocol, with the user's own key: nobody here reads it.
 */
export function serveTunnels(
  app: FastifyInstance,
  { tokens, tunnels }: { tokens: TokenVerifier; tunnels: TunnelService },
): void {
  const server = new WebSocketServer({
    ...{ noServer: true, perMessageDeflate: false, maxPayload: MESSAGE_LIMIT_BYTES },
  })
  const draining = new AbortController()
  const open = new Set<Promise<void>>()
  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy())
    const done = serveOne(request, { socket, head, server, tokens, tunnels, draining: draining.signal })
      .catch((error: unknown) => refuse(socket, error))
      .finally(() => open.delete(done))
    open.add(done)
  })
  // Upgraded connections are no longer the HTTP server's, and its close would wait for them.
  app.addHook('preClose', async () => {
    draining.abort(common.service_unavailable({ service: 'devices' }))
    await Promise.all(open)
  })
}

async function serveOne(
  request: IncomingMessage,
  given: {
    socket: Duplex
    head: Buffer
    server: WebSocketServer
    tokens: TokenVerifier
    tunnels: TunnelService
    draining: AbortSignal
  },
): Promise<void> {
  const { socket, head, server, tokens, tunnels, draining } = given
  const path = URL.parse(request.url ?? '/', 'http://devices')?.pathname ?? ''
  const deviceId = tunnelTarget(path)
  if (deviceId === undefined) throw common.not_found({ method: 'WebSocket', path })
  const token = /^Bearer (\S{1,8192})$/.exec(request.headers.authorization ?? '')?.[1]
  if (token === undefined) throw common.unauthenticated()
  const caller = await tokens.verify(token)
  if (!may(caller, AdbTunnel.permission)) throw common.forbidden({ permission: AdbTunnel.permission })
  const gone = new AbortController()
  socket.once('close', () => gone.abort(new Error('the caller has gone')))
  const signal = AbortSignal.any([gone.signal, draining])
  const cause = { actor: caller.userId, requestId: null, sessionId: caller.sessionId, address: null }
  const visit = await inScope(cause, () => tunnels.begin({ caller, deviceId, signal }))
  try {
    const phone = await connectTo(visit, deviceId, tunnels)
    const line = await new Promise<WebSocket>((resolve) => {
      server.handleUpgrade(request, socket, head, resolve)
    })
    await carry(line, phone, visit)
  } finally {
    visit.end()
  }
}

async function connectTo(visit: Visit, deviceId: DeviceId, tunnels: TunnelService): Promise<Socket> {
  const { adb_host: host, adb_port: port } = visit.device
  const socket = connect({ host: host ?? '', port: port ?? 0, noDelay: true })
  const timeout = AbortSignal.timeout(CONNECT_TIMEOUT_MS)
  try {
    await once(socket, 'connect', { signal: AbortSignal.any([visit.signal, timeout]) })
    return socket
  } catch (error) {
    socket.destroy()
    if (visit.signal.aborted) throw visit.signal.reason
    throw await tunnels.unreachable(deviceId, timeout.aborted ? 'its adb port does not answer' : error)
  }
}

/** Carries bytes both ways until one side ends or the visitor must leave. */
async function carry(line: WebSocket, phone: Socket, { signal }: Visit): Promise<void> {
  const caller = createWebSocketStream(line)
  const closed = once(line, 'close')
  const hangUp = (code?: number, reason?: string): void => {
    // The phone hears nothing more of him, whether he hears our farewell or not.
    caller.unpipe(phone)
    phone.destroy()
    line.close(code, reason)
    setTimeout(() => line.terminate(), FAREWELL_MS).unref()
  }
  const leave = (): void => {
    const { reason } = signal
    if (reason instanceof ProblemError) hangUp(mustLeaveCode, reason.code)
    else hangUp()
  }
  if (signal.aborted) leave()
  signal.addEventListener('abort', leave, { once: true })
  // Either side hangs up in its own way: that is how every adb connection ends.
  caller.on('error', () => hangUp())
  phone.on('error', () => hangUp()).on('close', () => hangUp())
  caller.pipe(phone)
  phone.pipe(caller)
  try {
    await closed
  } finally {
    signal.removeEventListener('abort', leave)
    phone.destroy()
  }
}

function refuse(socket: Duplex, error: unknown): void {
  if (socket.destroyed) return
  writeProblem(
    socket,
    error instanceof ProblemError ? error : common.service_unavailable({ service: 'devices' }),
  )
}
