import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openLog, silentLog } from '@cloudphone/observe/log'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import { type Client, openClient } from '@cloudphone/sdk/client'
import { type RunningServer, startServer } from '@cloudphone/server/run'
import { readServerSettings, type Settings } from '@cloudphone/server/settings'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { type Books, openBooks } from './books.ts'
import { removeFolder } from './leavings.ts'
import { adbPorts } from './ports.ts'

/** What tests can reach of a platform, wherever it runs. */
export interface Reach {
  readonly dataDir: string
  readonly books: Books
  /** The phones as their host knows them; also the place to make them fail. */
  readonly host: PhoneHostClient
}

/** The real server of all services, in this process. */
export interface TestPlatform extends Reach {
  readonly url: string
  /** Signed in as the administrator. */
  readonly client: Client
  readonly server: RunningServer
  /** Stops services, phones and PostgreSQL and removes the data. @throws Error when anything is left running. */
  close(): Promise<void>
}

/** Fast phones, ports of this file's own, and limits that a test does not meet; the limiter stays on. */
export function testEnv(dataDir: string, env: Readonly<Record<string, string>> = {}): Record<string, string> {
  return {
    CLOUDPHONE_DATA_DIR: dataDir,
    CLOUDPHONE_LOG_LEVEL: 'silent',
    DEVICES_SIM_BOOT_MS: '50',
    DEVICES_ADB_PORTS: adbPorts(),
    DEVICES_RECONCILE_MS: '250',
    DEVICES_RESTART_BACKOFF_MS: '100',
    GATEWAY_LIMIT_PER_SECOND: '1000',
    GATEWAY_LIMIT_PER_10_SECONDS: '10000',
    GATEWAY_LIMIT_PER_MINUTE: '60000',
    ...env,
  }
}

/** The settings of a test's server, on ports that the system chooses. */
export function testSettings(dataDir: string, env?: Readonly<Record<string, string>>): Settings {
  return { ...readServerSettings(testEnv(dataDir, env), dataDir), portBase: 0 }
}

/** Starts the real server in this process, over a data directory of its own; `env` are further settings. */
export async function openPlatform(env: Readonly<Record<string, string>> = {}): Promise<TestPlatform> {
  const folder = await temporaryFolder('platform-')
  const dataDir = join(folder, 'data')
  try {
    const server = await startServer(testSettings(dataDir, env), testLog())
    return await over(folder, dataDir, server)
  } catch (error) {
    await removeFolder(folder)
    throw error
  }
}

/** Silent; the log of a test that one looks into goes to standard error by PLATFORM_TEST_LOG=debug. */
export function testLog() {
  const level = process.env.PLATFORM_TEST_LOG
  return level === undefined ? silentLog() : openLog({ level: level as 'debug', format: 'json' })
}

async function over(folder: string, dataDir: string, server: RunningServer): Promise<TestPlatform> {
  const url = server.services.find(({ name }) => name === 'gateway')?.address
  if (url === undefined) throw new Error('the platform has no gateway')
  const reach = reachOf(dataDir)
  return {
    ...reach,
    url,
    server,
    client: await adminClient(url, dataDir),
    close: async () => {
      await reach.host.close()
      await server.shutDown('stop')
      await removeFolder(folder)
    },
  }
}

/** What can be reached through a data directory. */
export function reachOf(dataDir: string): Reach {
  const socketPath = join(dataDir, 'phones', 'run', 'host.sock')
  return { dataDir, books: openBooks(dataDir), host: openPhoneHost({ socketPath }) }
}

/** A client with the account that the first start has made. */
export async function adminClient(url: string, dataDir: string): Promise<Client> {
  const { email, password } = JSON.parse(await readFile(join(dataDir, 'credentials.json'), 'utf8'))
  return openClient({ url, credentials: { kind: 'password', email, password } })
}
