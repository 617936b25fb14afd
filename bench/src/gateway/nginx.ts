import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const PROGRAM = '/usr/sbin/nginx'
const READY_WITHIN_MS = 10_000
const LOOK_AGAIN_MS = 10

/** An nginx of its own with one worker. */
export interface Nginx extends AsyncDisposable {
  readonly pid: number
  readonly url: string
}

/**
 * Starts Debian's nginx on a port of 127.0.0.1 with these lines inside its `http` block.
 * @throws Error that says what is missing.
 */
export async function startNginx(port: number, http: readonly string[]): Promise<Nginx> {
  if (!existsSync(PROGRAM)) throw new Error(`${PROGRAM} is missing: this needs Debian's package nginx-light`)
  const folder = await mkdtemp(join(tmpdir(), 'cloudphone-nginx-'))
  await writeFile(join(folder, 'nginx.conf'), configuration(folder, http))
  const child = spawn(PROGRAM, ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', 'stderr'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const { pid } = child
  if (pid === undefined) throw new Error('nginx did not start')
  await becomesReady(port)
  return {
    pid,
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        await ended
      }
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function configuration(folder: string, http: readonly string[]): string {
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return [
    'daemon off;',
    'worker_processes 1;',
    `pid ${folder}/pid;`,
    'events { worker_connections 4096; }',
    'http {',
    'access_log off;',
    'keepalive_requests 100000000;',
    ...places.map((place) => `${place}_temp_path ${folder}/${place};`),
    ...http,
    '}',
    '',
  ].join('\n')
}

async function becomesReady(port: number): Promise<void> {
  const deadlineMs = performance.now() + READY_WITHIN_MS
  while (!(await accepts(port))) {
    if (performance.now() > deadlineMs) throw new Error(`nginx does not answer on port ${port}`)
    await sleep(LOOK_AGAIN_MS)
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
    socket.once('close', () => socket.destroy())
    socket.once('connect', () => socket.destroy())
  })
}
