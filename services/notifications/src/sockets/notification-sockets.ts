import type { Server as HttpServer } from 'node:http'
import type { Caller } from '@cloudphone/contracts/access'
import type { Notification } from '@cloudphone/contracts/api/notifications-api'
import type { Logger } from '@cloudphone/observe/log'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { RevocationWatch } from '@cloudphone/runtime/revocations'
import type { TokenVerifier } from '@cloudphone/runtime/tokens'
import { Server, type Socket } from 'socket.io'
import type { Telemetry } from '../telemetry.ts'

/** The sockets of one instance: namespace `/notifications`, event `notification`, WebSocket only (decision 30). */
export interface NotificationSockets {
  /**
   * Brings stored notices to the users who have a socket here. Called for every wake-up, on every instance, so a user
   * hears of a notice wherever it was stored. Each goes to a socket once.
   */
  push(): Promise<void>
  close(): Promise<void>
}

// A little more than what one look covers, so that nothing is pushed twice.
const rememberPushes = 5_000

/** Attaches the sockets to an HTTP server. The user is who the token in `auth.token` says, never what a client claims. */
export function openSockets(options: {
  server: HttpServer
  tokens: TokenVerifier
  revocations: Pick<RevocationWatch, 'isRevoked' | 'onChange'>
  log: Logger
  telemetry: Telemetry
  /** The recent notices of these users. */
  recent: (userIds: readonly string[]) => Promise<readonly Notification[]>
}): NotificationSockets {
  const { server, tokens, revocations, log, telemetry, recent } = options
  const io = new Server(server, { transports: ['websocket'], serveClient: false, maxHttpBufferSize: 16_384 })
  const namespace = io.of('/notifications')
  const users = new Map<string, number>()
  const pushed = new Set<string>()
  let pushing: Promise<void> | undefined
  let again = false

  namespace.use((socket, next) => {
    identify(socket, tokens).then(
      () => next(),
      (error: unknown) => next(refusal(error)),
    )
  })
  namespace.on('connection', (socket) => {
    const { userId }: Caller = socket.data.caller
    users.set(userId, (users.get(userId) ?? 0) + 1)
    telemetry.connected(userId)
    void socket.join(userId)
    socket.on('disconnect', () => {
      const left = (users.get(userId) ?? 1) - 1
      if (left === 0) users.delete(userId)
      else users.set(userId, left)
      telemetry.disconnected(userId)
    })
  })

  // A socket lives longer than the token that opened it: it ends with the session behind it.
  const deaf = revocations.onChange(({ missed }) => {
    for (const socket of namespace.sockets.values()) {
      if (missed || revocations.isRevoked(socket.data.caller)) socket.disconnect(true)
    }
  })

  const look = async (): Promise<void> => {
    do {
      again = false
      for (const notice of await recent([...users.keys()])) {
        if (pushed.has(notice.id)) continue
        pushed.add(notice.id)
        namespace.to(notice.userId).emit('notification', notice)
        telemetry.pushed(1)
      }
      for (const id of pushed) {
        if (pushed.size <= rememberPushes) break
        pushed.delete(id)
      }
    } while (again)
  }

  return {
    push: async () => {
      if (pushing !== undefined) {
        again = true
        return pushing
      }
      pushing = look()
        .catch((error: unknown) => log.warn({ event: 'notification.push_failed', err: error }))
        .finally(() => {
          pushing = undefined
        })
      return pushing
    },
    close: async () => {
      deaf()
      io.disconnectSockets(true)
      io.engine.close()
    },
  }
}

async function identify(socket: Socket, tokens: TokenVerifier): Promise<void> {
  const token: unknown = socket.handshake.auth.token
  if (typeof token !== 'string') throw new Error('unauthenticated')
  socket.data.caller = await tokens.verify(token)
}

/** Socket.IO shows the message and `data` of the error to the client: only what it may know. */
function refusal(error: unknown): Error {
  const code = error instanceof ProblemError ? error.code : 'unauthenticated'
  return Object.assign(new Error(code), { data: { code } })
}
