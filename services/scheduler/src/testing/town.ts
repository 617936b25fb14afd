import { generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import type { Bus } from '@cloudphone/bus/bus'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import type { Caller } from '@cloudphone/contracts/access'
import { Jwks } from '@cloudphone/contracts/api/users-api'
import { type EventDefinition, type PayloadOf, schemaName } from '@cloudphone/contracts/event'
import { systemIds } from '@cloudphone/contracts/id'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import { bind, openHttpServer } from '@cloudphone/runtime/http-server'
import type { Platform } from '@cloudphone/runtime/platform'
import { accessTokens, openServiceTokens, openTokenVerifier } from '@cloudphone/runtime/tokens'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { scheduler } from '../service.ts'
import { type DevicesDoor, openDevicesDoor } from './devices-door.ts'

/** Instances of the scheduler as the runtime runs them, over a real database and bus, with a devices service over HTTP. */
export interface Town extends AsyncDisposable {
  readonly bus: Bus
  readonly door: DevicesDoor
  start(): Promise<RunningService>
  publish<D extends EventDefinition>(
    definition: D,
    fact: { subject: string; version: number; payload: PayloadOf<D> },
  ): Promise<void>
  ask(
    instance: RunningService,
    caller: Caller,
    request: { method: string; path: string; body?: unknown; key?: string },
  ): Promise<{ status: number; body: Record<string, unknown> }>
}

const secret = 'a secret that only the services of this test share'
const now = () => new Date()

export async function openTown(): Promise<Town> {
  const log = silentLog()
  const closing = new ClosingStack(log)
  const folder = await mkdtemp(join(tmpdir(), 'scheduler-'))
  closing.defer('folder', () => rm(folder, { recursive: true, force: true }))
  const own = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'scheduler' })
  closing.defer('database', () => own.drop())
  const migrations = [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS]
  const busDatabase = await createTestDatabase({ migrations, schema: 'bus' })
  closing.defer('bus database', () => busDatabase.drop())
  const crash = crashPoints(undefined)
  const metrics = openMetrics('test')
  const bus = openEmbeddedBus({ url: busDatabase.url, log, metrics, crash })
  closing.defer('bus', () => bus.close())
  await bus.declare()
  const serviceTokens = openServiceTokens({ secret, now })
  const door = await openDevicesDoor(serviceTokens)
  closing.defer('devices', async () => await door[Symbol.asyncDispose]())
  const registry = staticRegistry({ devices: [door.address] })
  const keys = await openKeys()
  closing.defer('users', keys.close)
  await registry.register('users', keys.address)
  const platform: Platform = {
    ...{
      env: { SCHEDULER_EXPIRY_EVERY_MS: '100' },
      log,
      registry,
      bus,
      crash,
      metrics,
      serviceSecret: secret,
    },
    blobs: await openDirectoryStore(join(folder, 'blobs')),
    databases: { scheduler: { url: own.url as string, schema: 'scheduler' } },
    ...{ poolSize: 8, host: '127.0.0.1', portBase: 0 },
  }
  let instances = 0
  return {
    ...{ bus, door },
    start: async () => {
      const running = await startService(scheduler, platform, { instance: instances })
      instances += 1
      closing.defer(`instance ${instances}`, () => running.close())
      return running
    },
    publish: async (definition, { subject, version, payload }) => {
      const [outcome] = await bus.publish([
        {
          ...{
            specversion: '1.0',
            id: systemIds.next<'event'>(),
            source: '/test',
            type: definition.name,
            subject,
          },
          ...{
            time: now().toISOString(),
            datacontenttype: 'application/json',
            dataschema: schemaName(definition),
          },
          ...{ aggregatetype: definition.aggregate, aggregateversion: version, data: payload },
        },
      ])
      if (outcome?.outcome !== 'accepted') throw new Error(`the bus did not take ${definition.name}`)
    },
    ask: async ({ address }, caller, { method, path, body, key }) => {
      const response = await fetch(`${address}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${keys.tokenOf(caller)}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...(key !== undefined && { 'idempotency-key': key }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      return { status: response.status, body: (await response.json()) as Record<string, unknown> }
    },
    [Symbol.asyncDispose]: () => closing.close(),
  }
}

/** A users service that only publishes its key, and tokens signed with that. */
async function openKeys() {
  const pair = generateKeyPairSync('ed25519')
  const kid = randomUUID()
  const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid, kty: 'OKP', alg: 'EdDSA', use: 'sig' }
  const app = await openHttpServer(
    {
      ...{ service: 'users', log: silentLog(), metrics: openMetrics('users'), sharedMetrics: undefined },
      tokens: openTokenVerifier({ fetchKeys: async () => ({ keys: [] }), now }),
      serviceTokens: openServiceTokens({ secret, now }),
      ...{ idempotency: undefined, ready: async () => true, uploadLimitBytes: 1024 },
    },
    [bind(Jwks, async () => ({ keys: [jwk] }))],
  )
  const address = await app.listen({ host: '127.0.0.1', port: 0 })
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return {
    address,
    close: () => app.close(),
    tokenOf: ({ userId, tenantId, role, sessionId }: Caller) => {
      const issuedAt = Math.floor(now().getTime() / 1000)
      const { issuer: iss, audience: aud, algorithm: alg } = accessTokens
      const claims = {
        iss,
        aud,
        sub: userId,
        tid: tenantId,
        role,
        sid: sessionId,
        iat: issuedAt,
        exp: issuedAt + 900,
      }
      const text = `${part({ alg, kid })}.${part(claims)}`
      return `${text}.${sign(null, Buffer.from(text), pair.privateKey).toString('base64url')}`
    },
  }
}
