import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { endOrphan } from '@cloudphone/db/embedded/postgres'
import type { PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import type { Client } from '@cloudphone/sdk/client'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { processesOf, removeFolder } from './leavings.ts'
import { adminClient, type Reach, reachOf, testEnv } from './platform.ts'
import { freePortBase } from './ports.ts'
import { until } from './until.ts'

export const executable = fileURLToPath(new URL('../../server/bin/cloudphone.mjs', import.meta.url))

/** What a command said and how it ended. */
export interface Said {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A command that goes on. */
export interface Begun {
  readonly firstLine: string
  /** Ends it by Ctrl-C; what it said on standard error. */
  end(): Promise<string>
}

/** One run of `cloudphone start` that has become ready. */
export interface Run {
  readonly pid: number
  readonly url: string
  /** What it printed until it was ready. */
  readonly greeting: readonly string[]
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  readonly hasEnded: () => boolean
  /** Sends a signal and waits for the end. */
  end(signal: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/** A data directory on which the platform is run as a process of its own, again and again. */
export interface PlatformHome extends Reach {
  readonly folder: string
  readonly env: Readonly<Record<string, string>>
  /** Starts the platform; `env` are further settings of this run. @throws Error with its words when it ends before it is ready. */
  start(env?: Readonly<Record<string, string>>): Promise<Run>
  /** Signed in as the administrator of the run that goes on now. */
  client(): Promise<Client>
  /** Runs `cloudphone` with arguments to its end. */
  cloudphone(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Said>
  /** Runs a command that goes on until it is ended; resolves with the first line that it prints. */
  begin(args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Begun>
  /** Ends what runs by Ctrl-C and removes the data. @throws Error when anything is left running. */
  close(): Promise<void>
}

/** Makes the data directory; nothing runs yet. */
export async function platformHome(env: Readonly<Record<string, string>> = {}): Promise<PlatformHome> {
  const folder = await temporaryFolder('platform-')
  const dataDir = join(folder, 'data')
  const home = join(folder, 'home')
  await mkdir(home)
  const given = {
    ...{ PATH: process.env.PATH ?? '', HOME: home, XDG_CONFIG_HOME: join(home, '.config'), NO_COLOR: '1' },
    ...testEnv(dataDir, env),
    CLOUDPHONE_PORT_BASE: String(await freePortBase()),
  }
  let run: Run | undefined
  const reach = reachOf(dataDir)
  return {
    ...reach,
    folder,
    env: given,
    start: async (more = {}) => {
      run = await start({ ...given, ...more }, folder)
      return run
    },
    client: async () => {
      if (run === undefined) throw new Error('the platform was never started')
      return await adminClient(run.url, dataDir)
    },
    cloudphone: (args, more = {}) => cloudphone(args, { ...given, ...more }, folder),
    begin: (args, more = {}) => begin(args, { ...given, ...more }, folder),
    close: async () => {
      if (run === undefined || run.hasEnded()) await endRemains(reach.host, { folder, dataDir })
      else await run.end('SIGINT')
      await reach.host.close()
      await removeFolder(folder)
    },
  }
}

/** Ends what a run has left behind: the phone host, as after SIGTERM, and PostgreSQL, as after SIGKILL. */
async function endRemains(
  host: PhoneHostClient,
  { folder, dataDir }: { folder: string; dataDir: string },
): Promise<void> {
  const isThere = await host.health().then(
    () => true,
    () => false,
  )
  if (isThere) await host.shutdown()
  await endOrphan(join(dataDir, 'postgres'))
  await until('the phone host to end', async () => (await processesOf(folder)).length === 0)
}

async function start(env: Readonly<Record<string, string>>, cwd: string): Promise<Run> {
  const child = spawn(process.execPath, [executable, 'start'], {
    env,
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const exited = once(child, 'exit').then(([code, signal]) => ({ code, signal }))
  const errors = text(child.stderr)
  const greeting: string[] = []
  const ready = new Promise<void>((resolve) => {
    createInterface(child.stdout).on('line', (line) => {
      greeting.push(line)
      if (line.includes('Ctrl-C')) resolve()
    })
  })
  const failed = exited.then(async ({ code, signal }) => {
    throw new Error(`cloudphone start ended with ${code ?? signal}: ${await errors}`)
  })
  await Promise.race([ready, failed])
  // From now on its end is what a test waits for.
  failed.catch(() => undefined)
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null
  return {
    pid: pidOf(child),
    url: /http:\S+/.exec(greeting[0] ?? '')?.[0] ?? '',
    greeting,
    exited,
    hasEnded,
    end: async (signal) => {
      if (!hasEnded()) child.kill(signal)
      return await exited
    },
  }
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('the process has no pid')
  return pid
}

/** Runs `cloudphone` to its end. */
async function cloudphone(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd: string,
): Promise<Said> {
  const child = spawn(process.execPath, [executable, ...args], {
    env,
    cwd,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [[code], stdout, stderr] = await Promise.all([
    once(child, 'exit'),
    text(child.stdout),
    text(child.stderr),
  ])
  return { code, stdout, stderr }
}

async function begin(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd: string,
): Promise<Begun> {
  const child = spawn(process.execPath, [executable, ...args], {
    ...{ env, cwd },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(child, 'exit')
  const errors = text(child.stderr)
  const early = ended.then(async ([code]) => {
    throw new Error(`cloudphone ${args[0]} ended with ${code}: ${await errors}`)
  })
  early.catch(() => undefined)
  const [line] = await Promise.race([once(createInterface(child.stdout), 'line'), early])
  return {
    firstLine: String(line),
    end: async () => {
      child.kill('SIGINT')
      await ended
      return await errors
    },
  }
}
