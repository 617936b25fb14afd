import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Device } from '@cloudphone/contracts/api/devices-api'
import type { SagaView } from '@cloudphone/contracts/api/platform-api'
import type { Database } from '@cloudphone/db/database'
import { openPhoneHost, type PhoneHostClient } from '@cloudphone/phone/host/phone-host-client'
import type { RunningService } from '@cloudphone/runtime/host'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { ask } from '@cloudphone/testing/ask'
import { openTown, type Town } from '@cloudphone/testing/town'
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
  readonly town: Town
  readonly neighbours: Neighbours
  readonly hostProcess: PhoneHostProcess
  readonly host: PhoneHostClient
  readonly database: Database<DevicesSchema>
  readonly scheduler: ServiceClient
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

const PATIENCE_MS = 20_000

/** Opens everything; `env` are further settings. */
export async function openDevicesBed(env: Record<string, string> = {}): Promise<DevicesBed> {
  const folder = await mkdtemp(join(tmpdir(), 'devices-'))
  const hostProcess = await startPhoneHost(folder)
  const town = await openTown({
    env: {
      DEVICES_PHONE_HOST_SOCKET: hostProcess.socketPath,
      DEVICES_SIM_BOOT_MS: '20',
      DEVICES_ADB_PORTS: freshPorts(),
      DEVICES_RECONCILE_MS: '200',
      DEVICES_RESTART_BACKOFF_MS: '50',
      ...env,
    },
  })
  town.closing.defer('folder', () => rm(folder, { recursive: true, force: true }))
  town.closing.defer('phone host', async () => await hostProcess[Symbol.asyncDispose]())
  const database = town.databaseOf<DevicesSchema>('devices')
  const bed: DevicesBed = {
    ...{ town, hostProcess, database, scheduler: town.clientOf('scheduler') },
    host: town.closing.add('host client', openPhoneHost({ socketPath: hostProcess.socketPath })),
    neighbours: await startNeighbours(town),
    running: await town.start(devices),
    ask: async ({ token }, method, path, options = {}) => {
      const { status, body = {} } = await ask(bed.running.address, { method, path, token, ...options })
      return { status, data: body.data, problem: body }
    },
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
      const { env, serviceSecret, databases, registry } = town.platform
      const [users, apps] = [await registry.lookup('users'), await registry.lookup('apps')]
      return await spawnVictim({
        ...{ env: env as Record<string, string>, crashPoints: points, serviceSecret },
        ...{ databases: databases as VictimSettings['databases'], blobFolder: town.blobFolder },
        neighbours: { users, apps },
      })
    },
    recover: async () => {
      bed.running = await town.start(devices)
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
    [Symbol.asyncDispose]: town.close,
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
