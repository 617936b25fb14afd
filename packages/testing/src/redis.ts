import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { freePorts, type ServerProcess, serverProcess } from './server-process.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** A Redis of its own, on a port that was free; it keeps nothing. */
export interface RedisServer extends ServerProcess {
  readonly url: string
  /** Ends it and removes its folder. */
  close(): Promise<void>
}

const PROGRAM = '/usr/bin/redis-server'

/**
 * Starts Debian's `redis-server`: not one that runs already, since these tests kill it.
 * @throws Error that says what is missing.
 */
export async function startRedis(): Promise<RedisServer> {
  if (!existsSync(PROGRAM))
    throw new Error(`${PROGRAM} is missing: this needs Debian's package redis-server (6.2 or newer)`)
  const folder = await temporaryFolder('redis-')
  const [port = 0] = await freePorts(1)
  const server = serverProcess({
    ...{ name: 'Redis', program: PROGRAM },
    args: [
      '--bind',
      '127.0.0.1',
      '--port',
      String(port),
      '--dir',
      folder,
      '--save',
      '',
      '--appendonly',
      'no',
    ],
    isReady: () => answersPing(port),
  })
  await server.start()
  return {
    ...server,
    url: `redis://127.0.0.1:${port}`,
    close: async () => {
      await server.kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port })
    socket.once('connect', () => socket.write('PING\r\n'))
    socket.once('data', (bytes) => {
      socket.destroy()
      resolve(bytes.toString('latin1').startsWith('+PONG'))
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}
