import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { withClient } from '@cloudphone/db/client'
import { socketTarget } from '@cloudphone/db/target'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { freePorts } from './free-ports.ts'

const projectDir = fileURLToPath(new URL('../../', import.meta.url))
const readyLine = 'Cloudphone is ready'
const startWithinMs = 60_000
const stopWithinMs = 120_000

/**
 * A data directory of its own with the platform on it, started as a user would start it: by `npm start`, as processes.
 * Disposing of it leaves neither a process nor a file.
 */
export class PlatformProcess implements AsyncDisposable {
  readonly dataDir: string
  readonly client: Client
  /** Of the first admin. */
  readonly credentials: { readonly email: string; readonly password: string }
  readonly #portBase: number
  readonly #env: Readonly<Record<string, string | undefined>>
  #child: ChildProcess | undefined
  /** Killed, so that its database and phones still run. */
  #isOrphaned = false

  private constructor(
    dataDir: string,
    portBase: number,
    env: Readonly<Record<string, string | undefined>>,
    client: Client,
    credentials: PlatformProcess['credentials'],
  ) {
    this.dataDir = dataDir
    this.#portBase = portBase
    this.#env = env
    this.client = client
    this.credentials = credentials
  }

  /** Makes the directory; starts nothing yet. `env`: settings that differ from the defaults. */
  static async prepare(env: Readonly<Record<string, string>> = {}): Promise<PlatformProcess> {
    const dataDir = await mkdtemp(join(tmpdir(), 'cloudphone-bench-'))
    // PostgreSQL's account must be able to pass through.
    await chmod(dataDir, 0o755)
    const portBase = await freePortBase()
    const [email, password] = ['admin@cloudphone.local', randomBytes(18).toString('base64url')]
    const own = Object.entries(process.env).filter(([name]) => !/^(CLOUDPHONE|DATABASE|npm)_/.test(name))
    const firstAdbPort = randomInt(16_000, 28_000)
    const client = openClient({
      url: `http://127.0.0.1:${portBase}`,
      credentials: { kind: 'password', email, password },
    })
    return new PlatformProcess(
      dataDir,
      portBase,
      {
        ...Object.fromEntries(own),
        CLOUDPHONE_ADMIN_EMAIL: email,
        CLOUDPHONE_ADMIN_PASSWORD: password,
        DEVICES_ADB_PORTS: `${firstAdbPort}-${firstAdbPort + 999}`,
        ...env,
      },
      client,
      { email, password },
    )
  }

  /** Starts it and answers how long the ready line took, in ms. @throws Error with what it wrote when it ended. */
  async start(): Promise<number> {
    const startedMs = performance.now()
    const args = [
      'start',
      '--silent',
      '--',
      '--data-dir',
      this.dataDir,
      '--port-base',
      String(this.#portBase),
    ]
    const child = spawn('npm', args, { cwd: projectDir, env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    await becomesReady(child)
    this.#isOrphaned = false
    return performance.now() - startedMs
  }

  /** Ends the control plane by SIGKILL, as a crash would; its database and its phones stay. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
    this.#isOrphaned = true
  }

  /** As Ctrl-C: phones are stopped, services drained, PostgreSQL ended. */
  async stop(): Promise<void> {
    const code = await this.#end('SIGINT')
    if (code !== 0)
      throw new Error(`the platform on ${this.dataDir} did not stop in good order: code ${code}`)
  }

  /** Answers the exit code; null when the signal itself was the end. */
  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child
    if (child === undefined) return 0
    const exited = child.exitCode === null ? once(child, 'exit') : undefined
    const { pid } = JSON.parse(await readFile(join(this.dataDir, 'server.json'), 'utf8'))
    process.kill(pid, signal)
    const timeout = setTimeout(() => child.kill('SIGKILL'), stopWithinMs)
    await exited
    clearTimeout(timeout)
    this.#child = undefined
    return child.exitCode
  }

  /** What PostgreSQL says of itself, such as `18.1, fsync on, synchronous_commit on, shared_buffers 128MB`. */
  async postgresFacts(): Promise<string> {
    return this.ask('postgres', async (client) => {
      const show = async (name: string) => (await client.query(`show ${name}`)).rows[0]?.[name]
      const settings = ['fsync', 'synchronous_commit', 'shared_buffers']
      const values = []
      for (const name of settings) values.push(`${name} ${await show(name)}`)
      return [await show('server_version'), ...values].join(', ')
    })
  }

  /** Works on one of its databases as the superuser. */
  async ask<Result>(database: string, work: Parameters<typeof withClient<Result>>[2]): Promise<Result> {
    const home = join(this.dataDir, 'postgres')
    // The fifth line names the socket's folder (PostgreSQL source, pidfile.h).
    const directory = (await readFile(join(home, 'data', 'postmaster.pid'), 'utf8')).split('\n')[4] ?? ''
    const password = (await readFile(join(home, 'password'), 'utf8')).trim()
    return await withClient(socketTarget(directory, { user: 'postgres', password, database }), 'bench', work)
  }

  /** Where the first instance of a service listens. */
  addressOf(service: ServiceName): string {
    return `http://127.0.0.1:${this.#portBase + services[service].portOffset}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What a kill has left is found by a new start, and ended by its stop.
    if (this.#isOrphaned) await this.start()
    await this.stop()
    await rm(this.dataDir, { recursive: true, force: true })
  }
}

async function becomesReady(child: ChildProcess): Promise<void> {
  let output = ''
  const ready = Promise.withResolvers<void>()
  const hear = (part: Buffer) => {
    output = `${output}${part}`.slice(-10_000)
    if (output.includes(readyLine)) ready.resolve()
  }
  child.stdout?.on('data', hear)
  child.stderr?.on('data', hear)
  child.once('exit', (code) => ready.reject(new Error(`npm start ended with code ${code}:\n${output}`)))
  child.once('error', ready.reject)
  const timeout = setTimeout(() => {
    child.kill('SIGTERM')
    ready.reject(new Error(`npm start was not ready within ${startWithinMs} ms:\n${output}`))
  }, startWithinMs)
  try {
    await ready.promise
  } finally {
    clearTimeout(timeout)
  }
}

async function freePortBase(): Promise<number> {
  const count = Object.keys(services).length
  const from = randomInt(10_000, 14_000)
  for (let base = from; base < from + 1000; base += count) {
    if ((await freePorts({ from: base, to: base + count - 1 })).length === count) return base
  }
  throw new Error(`no ${count} free ports in a row from ${from} on`)
}
