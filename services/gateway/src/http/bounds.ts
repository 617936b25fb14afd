import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { HttpLimits } from '@cloudphone/runtime/http-server'
import type { ProblemError } from '@cloudphone/runtime/problem'
import { writeProblem } from '@cloudphone/runtime/socket-problem'
import type { FastifyInstance } from 'fastify'
import { limitKeyOf } from '../domain/rate-limit.ts'
import { problems } from '../errors.ts'
import type { GatewayTelemetry } from '../telemetry.ts'

const headBytes = 16 * 1024
const headCount = 100
const urlBytes = 8 * 1024
const headMs = 15_000
/** How often Node looks for connections whose head is late. */
const lookMs = 2_000
/** A connection that serves so many gives its place in a balancer in front of us to a new one. */
const requestsPerSocket = 10_000
/** What is left of a refused body is read for so long, so that the refusal is not lost in a reset. */
const lingerMs = 5_000

/** The bounds that Node holds before a request exists; what it refuses is answered as a problem. */
export const headLimits: HttpLimits = {
  maxHeaderSize: headBytes,
  connectionsCheckingInterval: lookMs,
  headersTimeout: headMs,
  maxRequestsPerSocket: requestsPerSocket,
  // Who offers another protocol (curl offers h2c) gets the answer in this one: RFC 9110, section 7.8.
  shouldUpgradeCallback: ({ headers }) => headers.upgrade?.toLowerCase() === 'websocket',
  refuse: (error, socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy()
    writeProblem(socket, problemOf(error))
  },
}

/** Bounds heads, connections and what is left of refused bodies. Heads are the first thing that is looked at. */
export function boundRequests(
  app: FastifyInstance,
  options: {
    /** 0 for no limit. */
    connectionsPerAddress: number
    isTrustedProxy: (address: string) => boolean
    telemetry: GatewayTelemetry
  },
): void {
  const tooLarge = (): ProblemError =>
    problems.headers_too_large({ limitBytes: headBytes, limitCount: headCount })
  app.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request
    // Names and values in turn.
    if (raw.rawHeaders.length > headCount * 2) done(tooLarge())
    else if ((raw.url?.length ?? 0) > urlBytes) done(problems.url_too_long({ limitBytes: urlBytes }))
    else done()
  })
  app.addHook('onResponse', (request, _reply, done) => {
    if (!request.raw.complete) linger(request.raw)
    done()
  })
  if (options.connectionsPerAddress > 0) boundConnections(app.server, options)
}

function linger(request: IncomingMessage): void {
  const timeout = setTimeout(() => request.destroy(), lingerMs).unref()
  request.once('close', () => clearTimeout(timeout))
}

function boundConnections(
  server: Server,
  options: Pick<
    Parameters<typeof boundRequests>[1],
    'connectionsPerAddress' | 'isTrustedProxy' | 'telemetry'
  >,
): void {
  const { connectionsPerAddress: limit, isTrustedProxy, telemetry } = options
  const open = new Map<string, number>()
  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress
    // A proxy brings the connections of many.
    if (address === undefined || isTrustedProxy(address)) return
    const key = limitKeyOf(address)
    const count = (open.get(key) ?? 0) + 1
    open.set(key, count)
    socket.once('close', () => {
      const left = (open.get(key) ?? 1) - 1
      if (left > 0) open.set(key, left)
      else open.delete(key)
    })
    if (count <= limit) return
    telemetry.connectionRefused()
    writeProblem(socket, problems.too_many_connections({ limit }))
  })
}

/** Node's own refusals by their codes (`llhttp`, and `ERR_HTTP_REQUEST_TIMEOUT` of its checks). */
function problemOf(error: NodeJS.ErrnoException & { rawPacket?: Buffer; reason?: string }): ProblemError {
  if (error.code === 'HPE_HEADER_OVERFLOW') {
    // The packet begins with the request, and its first line alone is too long.
    const text = error.rawPacket?.toString('latin1', 0, headBytes) ?? ''
    const isUrl = /^[A-Z]+ [^\n]*$/.test(text)
    return isUrl
      ? problems.url_too_long({ limitBytes: urlBytes })
      : problems.headers_too_large({ limitBytes: headBytes, limitCount: headCount })
  }
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return problems.request_too_slow({ limitMs: headMs })
  return problems.malformed_request({ reason: error.reason ?? error.code ?? 'unknown' })
}
