import { resolve } from 'node:path'
import type { OpenAndroid } from '../android/android.ts'
import { runHost } from './run-host.ts'

/**
 * The phone host as a process: runs until SIGTERM, SIGINT or `POST /v1/shutdown`, and gives the exit code. Tells on stdout, in one line of
 * JSON, that it listens; logs lines of JSON on stderr.
 */
export async function hostMain(options: {
  dir: string | undefined
  socketPath: string | undefined
  openAndroid: OpenAndroid
}): Promise<number> {
  const { dir, socketPath, openAndroid } = options
  if (dir === undefined || socketPath === undefined) {
    process.stderr.write('usage: phone host --dir DIR --socket PATH\n')
    return 2
  }
  // One phone's mistake must not switch off all the others; what is broken in it shows in the log.
  process.on('unhandledRejection', (reason) => log('host.unhandled_rejection', { error: stackOf(reason) }))
  try {
    const running = await runHost({ dir: resolve(dir), socketPath: resolve(socketPath), openAndroid, log })
    const stop = (): void =>
      void running.close().catch((error: unknown) => log('host.close_failed', { error: stackOf(error) }))
    process.on('SIGTERM', stop)
    process.on('SIGINT', stop)
    const { hostId, pid, version } = running.host.info()
    process.stdout.write(
      `${JSON.stringify({ ready: true, socket: resolve(socketPath), hostId, pid, version })}\n`,
    )
    await running.closed
    return 0
  } catch (error) {
    process.stderr.write(`phone host: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
}

function log(event: string, fields: Record<string, unknown>): void {
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), event, ...fields })}\n`)
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
