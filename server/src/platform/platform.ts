import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import type { Bus } from '@cloudphone/bus/bus'
import {
  EMBEDDED_BUS_MIGRATIONS,
  type EmbeddedBusOptions,
  openEmbeddedBus,
} from '@cloudphone/bus/embedded/embedded-bus'
import { openRabbitBus } from '@cloudphone/bus/rabbitmq/rabbit-bus'
import type { Cache } from '@cloudphone/cache/cache'
import { openFallbackCache } from '@cloudphone/cache/fallback-cache'
import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import { ServiceName, services } from '@cloudphone/contracts/services'
import { startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { provision } from '@cloudphone/db/provision'
import { systemClock } from '@cloudphone/observe/clock'
import { crashPoints } from '@cloudphone/observe/crash-point'
import type { Logger } from '@cloudphone/observe/log'
import { type Metrics, openMetrics } from '@cloudphone/observe/metrics'
import type { Tracing } from '@cloudphone/observe/tracing'
import { type Registry, staticRegistry } from '@cloudphone/registry/registry'
import { ClosingStack } from '@cloudphone/runtime/closing'
import type { Platform } from '@cloudphone/runtime/platform'
import { type Secrets, serviceEnv } from '../secrets.ts'
import type { Settings } from '../settings.ts'
import { type PhoneHostSupervisor, supervisePhoneHost } from './phone-host.ts'

/** The platform and what the server must do with it at the end. */
export interface OpenPlatform {
  readonly platform: Platform
  /** Undefined where no devices service runs. */
  readonly phoneHost: PhoneHostSupervisor | undefined
  /** Lines that the user should read at the start. */
  readonly notes: readonly string[]
  /** Closes bus, blobs and registry, then the database. The phone host is ended or left before. */
  close(): Promise<void>
}

const projectDirectory = fileURLToPath(new URL('../../../', import.meta.url))

/** Opens what stands behind the ports: the only place that knows the products. */
export async function openPlatform(settings: Settings, secrets: Secrets, log: Logger): Promise<OpenPlatform> {
  const closing = new ClosingStack(log)
  try {
    return await open(settings, secrets, log, closing)
  } catch (error) {
    await closing
      .close()
      .catch((failure: unknown) => log.error({ event: 'platform.close_failed', err: failure }))
    throw error
  }
}

async function open(
  settings: Settings,
  secrets: Secrets,
  log: Logger,
  closing: ClosingStack,
): Promise<OpenPlatform> {
  const notes: string[] = []
  // The database first: its lock tells whether another platform runs on this data directory.
  const database = await openDatabases(settings, log, closing, notes)
  const phoneHost = settings.services.includes('devices') ? await openPhones(settings, log) : undefined
  if (phoneHost !== undefined) closing.defer('phone host', () => phoneHost.takeBack())
  const blobs = await openDirectoryStore(join(settings.dataDir, 'blobs'))
  closing.add('blobs', blobs)
  const crash = crashPoints(settings.crashPoints)
  const metrics = openMetrics('platform')
  const tracing = await openTraces(settings, { log, metrics })
  // Closed when the services are, whose last spans it sends.
  if (tracing !== undefined) closing.add('tracing', tracing)
  const bus = closing.add(
    'bus',
    settings.rabbitmqUrl === undefined
      ? await openBusOverPostgres({ ...database.bus, log, metrics, crash })
      : openRabbitBus({ url: settings.rabbitmqUrl, log, metrics, crash }),
  )
  await bus.declare()
  const cache = closing.add('cache', await openCache(settings, secrets, { log, metrics }))
  const registry = closing.add('registry', await openRegistry(settings, secrets, { log, metrics }))
  return {
    phoneHost,
    notes,
    close: () => closing.close(),
    platform: {
      env: {
        ...serviceEnv(settings, secrets),
        ...(phoneHost !== undefined && { DEVICES_PHONE_HOST_SOCKET: phoneHost.socketPath }),
      },
      log,
      registry,
      bus,
      blobs,
      cache,
      crash,
      metrics,
      tracing,
      serviceSecret: secrets.serviceSecret,
      databases: database.services,
      poolSize: settings.database.poolSize,
      auditKeepDays: settings.auditKeepDays,
      host: settings.host,
      portBase: settings.portBase,
    },
  }
}

/** The way to the operator's collector; OpenTelemetry is not even loaded where none is named. */
async function openTraces(
  { tracing }: Settings,
  platform: { log: Logger; metrics: Metrics },
): Promise<Tracing | undefined> {
  if (tracing === undefined) return undefined
  const { openTracing } = await import('@cloudphone/observe/tracing')
  return openTracing({ ...tracing, ...platform })
}

/** This process's own, behind the one in Redis where that is set; the client of Redis is not even loaded where it is not. */
async function openCache(
  { redisUrl }: Settings,
  secrets: Secrets,
  { log, metrics }: { log: Logger; metrics: Metrics },
): Promise<Cache> {
  const own = openMemoryCache(systemClock)
  if (redisUrl === undefined) return own
  const { openRedisCache } = await import('@cloudphone/cache/redis-cache')
  const shared = openRedisCache({ url: redisUrl, prefix: `cloudphone:${installationOf(secrets)}`, log })
  return openFallbackCache({ shared, own, clock: systemClock, metrics })
}

/** Consul where that is set, else the ports of this machine; these are also what a process begins with while Consul is away. */
async function openRegistry(
  settings: Settings,
  secrets: Secrets,
  platform: { log: Logger; metrics: Metrics },
): Promise<Registry> {
  const given = staticRegistry(elsewhere(settings))
  if (settings.consul === undefined) return given
  const { openConsulRegistry } = await import('@cloudphone/registry/consul-registry')
  const installation = installationOf(secrets)
  return openConsulRegistry({
    ...settings.consul,
    ...platform,
    installation,
    fallback: given,
    clock: systemClock,
  })
}

/** Names the installation among those that share a server: all of its processes know its secret, and nobody else does. */
function installationOf({ serviceSecret }: Secrets): string {
  return createHash('sha256').update(serviceSecret).digest('hex').slice(0, 12)
}

/** Where the services answer that other processes of this machine run: each on its own port. */
function elsewhere({
  services: ours,
  host,
  portBase,
}: Settings): Partial<Record<ServiceName, readonly string[]>> {
  const name = host.includes(':') ? `[${host}]` : host
  return Object.fromEntries(
    ServiceName.options
      .filter((service) => !ours.includes(service))
      .map((service) => [service, [`http://${name}:${portBase + services[service].portOffset}`]]),
  )
}

interface Databases {
  readonly bus: { url: string; schema: string }
  readonly services: Platform['databases']
}

/** The embedded server, or the one that DATABASE_URL names; provisioned either way. */
async function openDatabases(
  settings: Settings,
  log: Logger,
  closing: ClosingStack,
  notes: string[],
): Promise<Databases> {
  const { url, directUrl } = settings.database
  const adminUrl = url ?? (await openEmbedded(settings, log, closing, notes))
  const schemas = await provision({ adminUrl: directUrl ?? adminUrl, log })
  const bus = schemas.bus
  if (bus === undefined) throw new Error('the bus has no schema')
  return { bus, services: schemas }
}

async function openEmbedded(
  settings: Settings,
  log: Logger,
  closing: ClosingStack,
  notes: string[],
): Promise<string> {
  const postgres = await startEmbeddedPostgres({
    dataDir: settings.dataDir,
    projectDir: projectDirectory,
    log,
  })
  closing.defer('postgres', () => postgres.stop())
  if (postgres.note !== undefined) notes.push(postgres.note)
  return postgres.adminUrl
}

/** The durable bus over PostgreSQL, its schema up to date. */
async function openBusOverPostgres(options: EmbeddedBusOptions & { schema: string }): Promise<Bus> {
  const { url, schema, log } = options
  await migrate({ url, schema, directories: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS], log })
  return openEmbeddedBus(options)
}

// A unix socket's path must fit into 108 bytes with its end (unix(7)).
const longestSocketPath = 100

async function openPhones(settings: Settings, log: Logger): Promise<PhoneHostSupervisor> {
  const directory = join(settings.dataDir, 'phones')
  let socketPath = join(directory, 'run', 'host.sock')
  if (Buffer.byteLength(socketPath) > longestSocketPath) {
    const name = createHash('sha256').update(directory).digest('hex').slice(0, 16)
    socketPath = join(tmpdir(), `cloudphone-${name}`, 'host.sock')
  }
  await mkdir(directory, { recursive: true, mode: 0o700 })
  return supervisePhoneHost({ directory, socketPath, log })
}
