import { randomUUID } from 'node:crypto'
import type { OpenAndroid } from '../android/android.ts'
import { buildHostServer, listenOnSocket } from './host-server.ts'
import type { HostLog } from './phone.ts'
import { PhoneHost } from './phone-host.ts'

export interface RunHostOptions {
  readonly dir: string
  readonly socketPath: string
  readonly openAndroid: OpenAndroid
  readonly log: HostLog
  readonly now?: () => Date
  readonly newId?: () => string
}

export interface RunningHost {
  readonly host: PhoneHost
  /** Resolves when the host has closed, also by `POST /v1/shutdown`. */
  readonly closed: Promise<void>
  close(): Promise<void>
}

/** Opens the directory and serves the API on the socket. Rejects with a one-line Error when another host is there. */
export async function runHost(options: RunHostOptions): Promise<RunningHost> {
  const { dir, socketPath, openAndroid, log } = options
  const host = await PhoneHost.open({
    dir,
    openAndroid,
    log,
    now: options.now ?? (() => new Date()),
    newId: options.newId ?? randomUUID,
  })
  const closed = Promise.withResolvers<void>()
  let closing = false
  const close = async (): Promise<void> => {
    if (!closing) {
      closing = true
      // The phones first: their last events still reach those who follow.
      await host
        .close()
        .then(() => app.close())
        .then(closed.resolve, closed.reject)
    }
    await closed.promise
  }
  const app = buildHostServer({
    host,
    log,
    shutdown: () =>
      void close().catch((error: unknown) => log('host.close_failed', { error: String(error) })),
  })
  try {
    await listenOnSocket(app, socketPath)
  } catch (error) {
    await host.close()
    throw error
  }
  return { host, closed: closed.promise, close }
}
