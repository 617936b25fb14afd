import { generateKeyPairSync, sign } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlobStore } from '@cloudphone/blobs/blob-store'
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import type { Bus } from '@cloudphone/bus/bus'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import type { Caller, Role } from '@cloudphone/contracts/access'
import { CheckAccess, type Device } from '@cloudphone/contracts/api/devices-api'
import { Jwks } from '@cloudphone/contracts/api/users-api'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import { type EventDefinition, type PayloadOf, schemaName } from '@cloudphone/contracts/event'
import { type AllocationId, type DeviceId, systemIds, type TenantId } from '@cloudphone/contracts/id'
import type { ServiceName } from '@cloudphone/contracts/services'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import { type Binding, bind, openHttpServer } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import { openServiceClient, type ServiceClient } from '@cloudphone/runtime/service-client'
import { accessTokens, openServiceTokens, openTokenVerifier } from '@cloudphone/runtime/tokens'
import { createTestDatabase, type TestClock, testClock } from '@cloudphone/testing/postgres'
import type { AppsSchema } from '../db/schema.ts'
import { apps } from '../service.ts'

/** A phone as the devices service's side of `CheckAccess` knows it. */
export interface Phone {
  readonly id: DeviceId
  readonly owner: Caller
  status: DeviceStatus
  allocationId: AllocationId | null
  fence: number
}

/** Two instances of the apps service over a real database, bus and blob store, with neighbours that speak by contract. */
export interface Town extends AsyncDisposable {
  readonly instances: readonly [RunningService, RunningService]
  readonly database: Database<AppsSchema>
  readonly bus: Bus
  readonly blobs: BlobStore
  readonly blobFolder: string
  /** Calls as the devices service. */
  readonly devices: ServiceClient
  /** Moves the databases' time. */
  readonly clock: TestClock
  readonly phones: Map<DeviceId, Phone>
  addPhone(owner: Caller): Phone
  tokenOf(caller: Caller): string
  /** Publishes an event as its service would; resolves when it is durable. */
  publish<Definition extends EventDefinition>(
    definition: Definition,
    aggregateId: string,
    payload: PayloadOf<Definition>,
  ): Promise<void>
}

const serviceSecret = 'a secret that only the services of this test share'
const refusals = defineProblems({
  device_not_found: [404, 'There is no phone {deviceId}.'],
  not_allocated: [403, 'The phone {deviceId} is not yours now.'],
})

export function callerOf(role: Role = 'member', tenantId: TenantId = systemIds.next<'tenant'>()): Caller {
  return { userId: systemIds.next<'user'>(), tenantId, role, sessionId: 'test' }
}

/** `crash` arms crash points; `env` are settings. */
export async function openTown(
  env: Record<string, string> = {},
  crash = crashPoints(undefined),
): Promise<Town> {
  const log = silentLog()
  const closing = new ClosingStack(log)
  const blobFolder = await mkdtemp(join(tmpdir(), 'apps-town-'))
  closing.defer('folder', () => rm(blobFolder, { recursive: true, force: true }))
  const own = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'apps' })
  closing.defer('database', () => own.drop())
  const ofBus = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  closing.defer('database of the bus', () => ofBus.drop())
  const metrics = openMetrics('bus')
  const bus = closing.add('bus', openEmbeddedBus({ url: ofBus.url, log, metrics, crash }))
  await bus.declare()
  const registry = staticRegistry()
  const signer = openSigner()
  const phones = new Map<DeviceId, Phone>()
  const raise = async (service: ServiceName, bindings: Binding[]) =>
    await registry.register(service, await openNeighbour(service, bindings, closing))
  await raise('users', [bind(Jwks, async () => signer.jwks)])
  await raise('devices', [checkAccess(phones)])
  const blobs = await openDirectoryStore(blobFolder)
  const platform = {
    ...{ env, log, registry, bus, blobs, crash, metrics, serviceSecret },
    ...{ databases: { apps: { url: own.url, schema: 'apps' } }, poolSize: 5, host: '127.0.0.1', portBase: 0 },
  }
  const instances = [
    closing.add('first', await startService(apps, platform)),
    closing.add('second', await startService(apps, platform, { instance: 1 })),
  ] as const
  const options = { url: own.url, schema: 'apps', poolSize: 2, applicationName: 'apps test', log }
  const database = closing.add('eyes', openDatabase<AppsSchema>(options))
  const serviceTokens = openServiceTokens({ secret: serviceSecret, now: () => new Date() })
  const devices = closing.add('client', openServiceClient({ self: 'devices', registry, serviceTokens }))
  return {
    ...{ instances, database, bus, blobs, blobFolder, devices, phones, clock: testClock(own) },
    addPhone: (owner) => {
      const phone: Phone = {
        ...{ id: systemIds.next<'device'>(), owner },
        ...{ status: 'RUNNING', allocationId: null, fence: 0 },
      }
      phones.set(phone.id, phone)
      return phone
    },
    tokenOf: signer.tokenOf,
    publish: async (definition, aggregateId, payload) => {
      const event = systemIds.next<'event'>()
      const [outcome] = await bus.publish([
        {
          ...{ specversion: '1.0', id: event, source: '/cloudphone/devices', type: definition.name },
          ...{ subject: aggregateId, time: new Date().toISOString(), datacontenttype: 'application/json' },
          ...{ dataschema: schemaName(definition), aggregatetype: definition.aggregate, aggregateversion: 1 },
          data: payload,
        },
      ])
      if (outcome?.outcome !== 'accepted') throw new Error(`not accepted: ${JSON.stringify(outcome)}`)
    },
    [Symbol.asyncDispose]: () => closing.close(),
  }
}

async function openNeighbour(
  service: ServiceName,
  bindings: Binding[],
  closing: ClosingStack,
): Promise<string> {
  const now = () => new Date()
  const server = await openHttpServer(
    {
      ...{ service, log: silentLog(), metrics: openMetrics(service), sharedMetrics: undefined },
      tokens: openTokenVerifier({ fetchKeys: async () => ({ keys: [] }), now }),
      serviceTokens: openServiceTokens({ secret: serviceSecret, now }),
      ...{ idempotency: undefined, ready: async () => true, uploadLimitBytes: 1 },
    },
    bindings,
  )
  closing.add(service, server)
  return await server.listen({ host: '127.0.0.1', port: 0 })
}

function checkAccess(phones: ReadonlyMap<DeviceId, Phone>): Binding {
  return bind(CheckAccess, async ({ params: { deviceId }, query }) => {
    const phone = phones.get(deviceId)
    if (phone === undefined || phone.owner.tenantId !== query.tenantId) {
      throw refusals.device_not_found({ deviceId })
    }
    if (phone.owner.userId !== query.userId && !query.any) throw refusals.not_allocated({ deviceId })
    return { device: deviceOf(phone), allocationId: phone.allocationId, fence: phone.fence }
  })
}

function deviceOf({ id, owner, status, allocationId, fence }: Phone): Device {
  const at = '2026-01-01T00:00:00.000Z'
  return {
    ...{ id, name: 'phone', tenantId: owner.tenantId, userId: owner.userId, status, type: 'phone' },
    ...{ providerType: 'simulated', cpuCores: 2, memoryMB: 2048, storageMB: 2048, resolution: '720x1280' },
    ...{ dpi: 240, androidVersion: '11', containerName: null, adbHost: null, adbPort: null },
    ...{ allocationId, fence, metadata: {}, lastError: null, createdAt: at, updatedAt: at, startedAt: at },
  }
}

/** Signs access tokens as the users service does. */
function openSigner() {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const kid = 'test'
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return {
    jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kty: 'OKP', kid, alg: 'EdDSA', use: 'sig' }] },
    tokenOf: ({ userId, tenantId, role, sessionId }: Caller): string => {
      const { issuer: iss, audience: aud, algorithm: alg } = accessTokens
      const exp = Math.floor(Date.now() / 1000) + 3600
      const claims = { iss, aud, exp, sub: userId, tid: tenantId, role, sid: sessionId }
      const signed = `${encode({ alg, kid })}.${encode(claims)}`
      return `${signed}.${sign(null, Buffer.from(signed), privateKey).toString('base64url')}`
    },
  }
}
