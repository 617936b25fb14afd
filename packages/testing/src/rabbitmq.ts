import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from './temporary-folder.ts'

/** A RabbitMQ node of its own, in a folder of its own, on ports that were free. */
export interface RabbitNode {
  readonly port: number
  /** The process of its Erlang, while it runs. */
  pid(): Promise<number>
  /** Makes empty virtual hosts; returns the URL of each. */
  virtualHosts(names: readonly string[]): Promise<readonly string[]>
  /** Runs rabbitmqctl; returns what it says. */
  control(...words: string[]): Promise<string>
  /** kill -9, as a crash would. */
  kill(): Promise<void>
  /** Starts it again over the same files. */
  start(): Promise<void>
  /** Ends it and removes its files. */
  close(): Promise<void>
}

const PROGRAMS = '/usr/lib/rabbitmq/bin'
const NAME_SERVER = '/usr/bin/epmd'
const READY_WITHIN_MS = 90_000
const LOOK_AGAIN_MS = 20

export interface RabbitNodeOptions {
  /** Where its files lie, an empty folder that goes with the node; a temporary one, in memory where there is room, when absent. */
  readonly folder?: string
}

/**
 * Starts a node of Debian's `rabbitmq-server` as whoever we are: not one that runs already, since these tests kill it.
 * @throws Error that says what is missing.
 */
export async function startRabbitNode(options: RabbitNodeOptions = {}): Promise<RabbitNode> {
  const missing = [join(PROGRAMS, 'rabbitmq-server'), NAME_SERVER].find((path) => !existsSync(path))
  if (missing !== undefined)
    throw new Error(`${missing} is missing: this needs Debian's package rabbitmq-server (3.10 or newer)`)
  const folder = options.folder ?? (await temporaryFolder('rabbitmq-'))
  const ports = await freePorts()
  const env = await environment(folder, ports)
  // Erlang's name server, in the foreground: one that the node starts would outlive it.
  const names = spawn(NAME_SERVER, ['-port', String(ports.names), '-address', '127.0.0.1'], {
    env,
    stdio: 'ignore',
  })
  let server: ChildProcess | undefined

  const control = async (...words: string[]): Promise<string> =>
    (await promisify(execFile)(join(PROGRAMS, 'rabbitmqctl'), words, { env })).stdout
  const pid = async (): Promise<number> => Number(await readFile(join(folder, 'pid'), 'utf8'))
  const kill = async (): Promise<void> => {
    if (server?.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, 'exit')
    try {
      endNow(await pid())
    } catch (error) {
      // Without its pid file it is ending by itself: a signal to our process group reached it too.
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
    }
    await ended
  }
  const start = async (): Promise<void> => {
    server = spawn(join(PROGRAMS, 'rabbitmq-server'), { env, stdio: 'ignore' })
    await becomesReady(ports.amqp)
  }
  const close = async (): Promise<void> => {
    await kill()
    names.kill('SIGKILL')
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  }
  try {
    await start()
  } catch (error) {
    server?.kill('SIGKILL')
    names.kill('SIGKILL')
    throw error
  }
  return {
    port: ports.amqp,
    pid,
    control,
    kill,
    start,
    close,
    async virtualHosts(wanted) {
      // In one go: each rabbitmqctl starts an Erlang of its own, a second and more.
      const list = wanted.map((name) => `<<"${name}">>`).join(', ')
      await control(
        'eval',
        `[begin rabbit_vhost:add(Name, <<"test">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>, Name,
           <<".*">>, <<".*">>, <<".*">>, <<"test">>) end || Name <- [${list}]].`,
      )
      return wanted.map((name) => `amqp://guest:guest@127.0.0.1:${ports.amqp}/${encodeURIComponent(name)}`)
    },
  }
}

interface Ports {
  readonly amqp: number
  readonly distribution: number
  readonly names: number
}

async function environment(folder: string, ports: Ports): Promise<NodeJS.ProcessEnv> {
  const config = join(folder, 'rabbitmq.conf')
  await writeFile(config, `listeners.tcp.1 = 127.0.0.1:${ports.amqp}\n`)
  await writeFile(join(folder, 'enabled_plugins'), '[].\n')
  await mkdir(join(folder, 'data'))
  return {
    ...process.env,
    // Where Erlang keeps the cookie that rabbitmqctl shows to the node.
    HOME: folder,
    RABBITMQ_NODENAME: `test-${ports.amqp}@localhost`,
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'enabled_plugins'),
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: join(folder, 'log'),
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    RABBITMQ_DIST_PORT: String(ports.distribution),
    ERL_EPMD_PORT: String(ports.names),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // Idle schedulers sleep at once: others work on these cores too.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+sbwt none +sbwtdcpu none +sbwtdio none',
  }
}

async function becomesReady(port: number): Promise<void> {
  const deadlineMs = performance.now() + READY_WITHIN_MS
  while (!(await isReady(port))) {
    if (performance.now() > deadlineMs)
      throw new Error(`RabbitMQ does not answer on port ${port} after ${READY_WITHIN_MS} ms`)
    // Real time: a server that starts cannot be awaited, only asked again.
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS))
  }
}

/** kill -9; that it is gone already is as good. */
function endNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/** A node that serves AMQP answers a wrong protocol header with the right one (AMQP 0-9-1, section 4.2.2). */
function isReady(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port })
    socket.once('connect', () => socket.write('HELLO!!!'))
    socket.once('data', (bytes) => {
      socket.destroy()
      resolve(bytes.toString('latin1').startsWith('AMQP'))
    })
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
}

async function freePorts(): Promise<Ports> {
  const doors = [createServer(), createServer(), createServer()]
  const [amqp = 0, distribution = 0, names = 0] = await Promise.all(
    doors.map(async (door) => {
      door.listen(0, '127.0.0.1')
      await once(door, 'listening')
      const address = door.address()
      return typeof address === 'object' && address !== null ? address.port : 0
    }),
  )
  await Promise.all(doors.map((door) => new Promise((resolve) => door.close(resolve))))
  return { amqp, distribution, names }
}
