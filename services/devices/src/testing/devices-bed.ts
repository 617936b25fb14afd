import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import type { Bus } from '@cloudphone/bus/bus'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import type { Device } from '@cloudphone/contracts/api/devices-api'
import type { SagaView } from '@cloudphone/contracts/api/platform-api'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { openLog, silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import { staticRegistry } from '@cloudphone/registry/registry'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import type { Platform } from '@cloudphone/runtime/platform'
import { openServiceClient, type ServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import type { DevicesSchema } from '../db/schema.ts'
import { devices } from '../service.ts'
import { type Neighbours, type Person, startNeighbours } from './neighbours.ts'
import { type PhoneHostProcess, startPhoneHost } from './phone-host-process.ts'
import type { VictimSettings } from './victim.ts'

export interface Answer<Data> {
  readonly status: number
  readonly data: Data
  readonly problem: { code: string; detail: string; [member: string]: unknown }
}

/** An event as the outbox holds it. */
export interface ToldEvent {
  readonly type: string
  readonly version: number
  readonly payload: Record<string, unknown>
}

/** The devices service over a real database, bus and phone host, with real neighbours. */
export interface DevicesBed extends AsyncDisposable {
  readonly neighbours: Neighbours
  readonly hostProcess: PhoneHostProcess
  readonly host: PhoneHostClient
  readonly database: Database<DevicesSchema>
  readonly bus: Bus
  readonly scheduler: ServiceClient
  readonly platform: Platform
  running: RunningService
  ask<Data = Device>(
    person: Person,
    method: string,
    path: string,
    options?: { body?: unknown; key?: string },
  ): Promise<Answer<Data>>
  create(person: Person, wish?: Record<string, unknown>): Promise<{ sagaId: string; device: Device }>
  /** Waits for the end of a saga and gives it. */
  ended(person: Person, sagaId: string): Promise<SagaView>
  /**
   * Stops the service in this process and starts one in a process of its own, armed with crash points. `died` resolves when
   * it has killed itself; `recover` then starts the service here again.
   */
  startVictim(crashPoints: string): Promise<{ address: string; died: Promise<void>; kill(): void }>
  recover(): Promise<void>
  /** Creates a device and waits until it runs. */
  createRunning(person: Person, wish?: Record<string, unknown>): Promise<Device>
  /** What was told of an aggregate, in order. */
  told(aggregateId: string): Promise<ToldEvent[]>
  /** Looks until `look` gives something else than undefined or false. */
  until<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T>
}

const secret = 'a secret that only the services of this test share'
const PATIENCE_MS = 20_000

/** Opens everything; `env` are further settings. */
export async function openDevicesBed(env: Record<string, string> = {}): Promise<DevicesBed> {
  const folder = await mkdtemp(join(tmpdir(), 'devices-'))
  const hostProcess = await startPhoneHost(folder)
  const own = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'devices' })
  const busDatabase = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  const log =
    process.env.DEVICES_TEST_LOG === undefined ? silentLog() : openLog({ level: 'info', format: 'json' })
  const crash = crashPoints(undefined)
  const metrics = openMetrics('test')
  const bus = openEmbeddedBus({ url: busDatabase.url, log, metrics, crash })
  await bus.declare()
  const registry = staticRegistry()
  const neighbours = await startNeighbours(registry, secret)
  const platform: Platform = {
    env: {
      DEVICES_PHONE_HOST_SOCKET: hostProcess.socketPath,
      DEVICES_SIM_BOOT_MS: '20',
      DEVICES_ADB_PORTS: freshPorts(),
      DEVICES_RECONCILE_MS: '200',
      DEVICES_RESTART_BACKOFF_MS: '50',
      ...env,
    },
    log,
    registry,
    bus,
    blobs: await openDirectoryStore(join(folder, 'blobs')),
    crash,
    metrics,
    serviceSecret: secret,
    databases: { devices: { url: own.url, schema: 'devices' } },
    poolSize: 8,
    host: '127.0.0.1',
    portBase: 0,
  }
  const running = await startService(devices, platform)
  const database = openDatabase<DevicesSchema>({
    url: own.url,
    schema: 'devices',
    poolSize: 4,
    applicationName: 'devices test',
    log,
  })
  const host = openPhoneHost({ socketPath: hostProcess.socketPath })
  const scheduler = openServiceClient({
    self: 'scheduler',
    registry,
    serviceTokens: openServiceTokens({ secret, now: () => new Date() }),
  })

  const bed: DevicesBed = {
    neighbours,
    hostProcess,
    host,
    database,
    bus,
    scheduler,
    platform,
    running,
    ask: (person, method, path, options = {}) =>
      ask(bed.running.address, person, { method, path, ...options }),
    create: async (person, wish = {}) => {
      const answer = await bed.ask<{ sagaId: string; device: Device }>(person, 'POST', '/api/devices', {
        body: { name: `phone ${randomUUID().slice(0, 8)}`, resolution: '360x640', ...wish },
      })
      if (answer.status !== 202) throw new Error(`create: ${answer.status} ${answer.problem.detail}`)
      return answer.data
    },
    ended: async (person, sagaId) =>
      await bed.until(`the end of ${sagaId}`, async () => {
        const { data } = await bed.ask<SagaView>(person, 'GET', `/api/sagas/${sagaId}?wait=10`)
        return data.endedAt === null ? undefined : data
      }),
    startVictim: async (points) => {
      await bed.running.close()
      const settings: VictimSettings = {
        env: platform.env as Record<string, string>,
        crashPoints: points,
        serviceSecret: secret,
        database: own.url,
        bus: busDatabase.url,
        blobs: join(folder, 'blobs'),
        users: (await registry.lookup('users'))[0] ?? '',
        apps: (await registry.lookup('apps'))[0] ?? '',
      }
      return await spawnVictim(settings)
    },
    recover: async () => {
      bed.running = await startService(devices, platform)
    },
    createRunning: async (person, wish) => {
      const { sagaId, device } = await bed.create(person, wish)
      const saga = await bed.ended(person, sagaId)
      if (saga.status !== 'COMPLETED') throw new Error(`${sagaId}: ${saga.status} ${saga.errorMessage}`)
      const { rows } = await sql<{ id: string }>`select id from devices where id = ${device.id}`.execute(
        database.kysely,
      )
      if (rows.length !== 1) throw new Error(`device ${device.id} is gone`)
      return (await bed.ask(person, 'GET', `/api/devices/${device.id}`)).data
    },
    told: async (aggregateId) => {
      const { rows } = await sql<ToldEvent>`
        select event_type as type, aggregate_version as version, payload from event_outbox
        where aggregate_id = ${aggregateId} order by aggregate_version`.execute(database.kysely)
      return rows
    },
    until: async (what, look) => {
      const untilMs = performance.now() + PATIENCE_MS
      while (performance.now() < untilMs) {
        const found = await look()
        if (found !== undefined && found !== false) return found
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
      throw new Error(`waited ${PATIENCE_MS} ms for ${what}`)
    },
    [Symbol.asyncDispose]: async () => {
      await scheduler.close()
      await host.close()
      await bed.running.close()
      await database.close()
      await neighbours[Symbol.asyncDispose]()
      await bus.close()
      await own.drop()
      await busDatabase.drop()
      await hostProcess[Symbol.asyncDispose]()
      await rm(folder, { recursive: true, force: true })
    },
  }
  return bed
}

async function spawnVictim(settings: VictimSettings) {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./victim.ts', import.meta.url))], {
    env: { ...process.env, VICTIM: JSON.stringify(settings) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const died = once(child, 'exit').then(() => undefined)
  if (child.stdout === null) throw new Error('the victim has no stdout')
  const [address] = await Promise.race([
    once(createInterface(child.stdout), 'line'),
    died.then(() => Promise.reject(new Error('the victim died before it listened'))),
  ])
  return { address: String(address), died, kill: () => void child.kill('SIGKILL') }
}

/** Test files run beside each other: each takes a range of its own, below the ports that the system hands out. */
function freshPorts(): string {
  const first = 12_000 + (process.pid % 90) * 200
  return `${first}-${first + 199}`
}

async function ask<Data>(
  address: string,
  person: Person,
  { method, path, body, key }: { method: string; path: string; body?: unknown; key?: string },
): Promise<Answer<Data>> {
  const response = await fetch(`${address}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${person.token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(key !== undefined && { 'idempotency-key': key }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const parsed = text === '' ? {} : JSON.parse(text)
  return { status: response.status, data: parsed.data, problem: parsed }
}
