import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { type ServiceName, services } from '@cloudphone/contracts/services'
import { startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { silentLog } from '@cloudphone/observe/log'
import type { Client } from '@cloudphone/sdk/client'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { endNow, removeFolder } from './leavings.ts'
import { adminClient, testEnv } from './platform.ts'
import { executable } from './platform-process.ts'
import { freePortBase } from './ports.ts'

/** A process that runs one service of a platform. */
export interface Part {
  readonly pid: number
  readonly url: string
  /** kill -9, as a crash would. */
  kill(): Promise<void>
}

/** A platform of several processes over one PostgreSQL: any service any number of times, each on ports of its own. */
export interface PlatformParts {
  /** Starts one more process with this service, and resolves when it is ready. @throws Error with its words when it ends before. */
  start(service: ServiceName): Promise<Part>
  /** Signed in as the administrator through this gateway. */
  client(gateway: Part): Promise<Client>
  /** Ends what runs in good order and removes the data. @throws Error when anything is left running. */
  close(): Promise<void>
}

/** Starts the PostgreSQL; `env` are settings of every process. */
export async function platformParts(env: Readonly<Record<string, string>>): Promise<PlatformParts> {
  const folder = await temporaryFolder('platform-')
  const dataDir = join(folder, 'data')
  const database = await startEmbeddedPostgres({
    ...{ dataDir: join(folder, 'database'), projectDir: folder, durability: 'none', log: silentLog() },
  })
  const given = {
    ...{ PATH: process.env.PATH ?? '', HOME: folder, NO_COLOR: '1', DATABASE_URL: database.adminUrl },
    ...testEnv(dataDir, env),
  }
  const children: ChildProcess[] = []
  return {
    start: async (service) => {
      const base = await freePortBase()
      const own = { CLOUDPHONE_SERVICES: service, CLOUDPHONE_PORT_BASE: String(base) }
      const child = spawn(process.execPath, [executable, 'start'], {
        ...{ env: { ...given, ...own }, cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] },
      })
      children.push(child)
      await becomesReady(child)
      const url = `http://127.0.0.1:${base + services[service].portOffset}`
      return {
        pid: child.pid ?? 0,
        url,
        kill: async () => {
          const ended = once(child, 'exit')
          endNow(child.pid ?? 0)
          await ended
        },
      }
    },
    client: (gateway) => adminClient(gateway.url, dataDir),
    close: async () => {
      // The gateways first, which were started last.
      for (const child of children.toReversed()) {
        if (child.exitCode !== null || child.signalCode !== null) continue
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        await ended
      }
      await database.stop()
      await removeFolder(folder)
    },
  }
}

async function becomesReady(child: ChildProcess): Promise<void> {
  const { stdout, stderr } = child
  if (stdout === null || stderr === null) throw new Error('the process has no output')
  const words = text(stderr)
  const ready = new Promise<void>((resolve) => {
    createInterface(stdout).on('line', (line) => {
      if (line.includes('ready')) resolve()
    })
  })
  const failed = once(child, 'exit').then(async ([code, signal]) => {
    throw new Error(`cloudphone start ended with ${code ?? signal}: ${await words}`)
  })
  await Promise.race([ready, failed])
  // From now on its end is the test's to cause.
  failed.catch(() => undefined)
}
