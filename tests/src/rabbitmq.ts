import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { endNow } from './leavings.ts'
import { until } from './until.ts'

/** A RabbitMQ node of its own, in a temporary folder, on ports that were free. */
export interface RabbitNode {
  readonly port: number
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

/**
 * Starts a node of Debian's `rabbitmq-server` as whoever we are: not one that runs already, since these tests kill it.
 * @throws Error that says what is missing.
 */
export async function startRabbitNode(): Promise<RabbitNode> {
  const missing = [join(PROGRAMS, 'rabbitmq-server'), NAME_SERVER].find((path) => !existsSync(path))
  if (missing !== undefined)
    throw new Error(
      `${missing} is missing: these tests need Debian's package rabbitmq-server (3.10 or newer)`,
    )
  const folder = await temporaryFolder('rabbitmq-')
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
  const kill = async (): Promise<void> => {
    if (server?.exitCode !== null || server.signalCode !== null) return
    const ended = once(server, 'exit')
    endNow(Number(await readFile(join(folder, 'pid'), 'utf8')))
    await ended
  }
  const start = async (): Promise<void> => {
    server = spawn(join(PROGRAMS, 'rabbitmq-server'), { env, stdio: 'ignore' })
    await until('RabbitMQ', () => isReady(ports.amqp), READY_WITHIN_MS)
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
