import { Jwks } from '@cloudphone/contracts/api/users-api'
import { systemIds } from '@cloudphone/contracts/id'
import { services } from '@cloudphone/contracts/services'
import { systemClock } from '@cloudphone/observe/clock'
import type { Logger } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import type { FastifyInstance } from 'fastify'
import { openAuditCheck } from './audit-check.ts'
import { ClosingStack } from './closing.ts'
import { readSettings } from './config.ts'
import { deriveKey } from './derived-key.ts'
import { type Binding, openHttpServer } from './http-server.ts'
import { type Kernel, openKernel } from './kernel.ts'
import type { Ground, Platform } from './platform.ts'
import { watchRevocations } from './revocation-watch.ts'
import type { AnyService, BaseContext, ServiceParts } from './service.ts'
import { openServiceClient } from './service-client.ts'
import { openServiceTokens, openTokenVerifier } from './tokens.ts'

/** A service that runs. */
export interface RunningService {
  readonly name: string
  readonly address: string
  /** Tests and the drain: resolves when nothing that this service has begun is left to do now. */
  drain(): Promise<void>
  /** Leaves rotation, finishes what is in hand, stops. Idempotent. */
  close(): Promise<void>
}

export interface StartOptions {
  /** 0 for the first instance on a machine. */
  readonly instance?: number
  /** True for one instance of a process: its /metrics hold the platform's too. */
  readonly showsPlatform?: boolean
}

const uploadLimitBytes = 2 * 1024 ** 3

/** The port of an instance: base + offset, and 100 further for each instance more. 0 as base picks free ports (tests). */
export function portOf(service: AnyService, portBase: number, instance: number): number {
  return portBase === 0 ? 0 : portBase + services[service.name].portOffset + 100 * instance
}

/**
 * Starts one instance of a service: schema, kernel, HTTP, then the registry. When a part fails, what was opened is closed
 * again and the error is thrown.
 */
export async function startService(
  service: AnyService,
  platform: Platform,
  options: StartOptions = {},
): Promise<RunningService> {
  return await startOn(service, platform, options, async (base) =>
    service.migrations === undefined ? undefined : await openKernel(service, platform, base),
  )
}

/**
 * Starts one instance of a service that keeps nothing, such as the gateway, where there is neither database nor bus.
 * @throws Error for a service with a schema.
 */
export async function startStatelessService(
  service: AnyService,
  ground: Ground,
  options: StartOptions = {},
): Promise<RunningService> {
  if (service.migrations !== undefined) throw new Error(`the ${service.name} service needs a database`)
  return await startOn(service, ground, options, async () => undefined)
}

type OpenKernel = (base: BaseContext<unknown>) => Promise<Kernel | undefined>

async function startOn(
  service: AnyService,
  platform: Ground,
  { instance = 0, showsPlatform = false }: StartOptions,
  openKernelOn: OpenKernel,
): Promise<RunningService> {
  const log = platform.log.child({ service: service.name, instance })
  const closing = new ClosingStack(log)
  try {
    return await start(service, platform, { instance, showsPlatform, openKernelOn }, log, closing)
  } catch (error) {
    await closing
      .close()
      .catch((failure: unknown) => log.error({ event: 'service.close_failed', err: failure }))
    throw error
  }
}

async function start(
  service: AnyService,
  platform: Ground,
  { instance, showsPlatform, openKernelOn }: Required<StartOptions> & { openKernelOn: OpenKernel },
  log: Logger,
  closing: ClosingStack,
): Promise<RunningService> {
  const base = baseContext(service, platform, instance, log, closing)
  const kernel = await openKernelOn(base)
  const parts = await (service.start as (context: unknown) => Promise<ServiceParts<unknown>>)(
    kernel === undefined ? base : { ...base, ...kernel.context },
  )
  await kernel?.begin(parts)
  const bindings: Binding[] = [...parts.routes, ...(kernel?.routes(parts) ?? [])]
  const app = await openHttpServer(
    {
      service: service.name,
      log,
      metrics: base.metrics,
      sharedMetrics: showsPlatform ? platform.metrics : undefined,
      tokens: base.tokens,
      serviceTokens: base.serviceTokens,
      idempotency: kernel?.idempotency,
      auditCheck:
        kernel && openAuditCheck({ log, metrics: base.metrics, strict: platform.strictAudit === true }),
      ready: async () => (await kernel?.ready()) ?? true,
      uploadLimitBytes,
      tracer: base.tracer,
      limits: parts.http,
    },
    bindings,
  )
  closing.add('http', app)
  await parts.extend?.(app)
  const address = await listen(app, platform, portOf(service, platform.portBase, instance))
  await platform.registry.register(service.name, address)
  closing.defer('registry', () => platform.registry.deregister(service.name, address))
  await parts.onReady?.()
  log.info({ event: 'service.started', address })
  return {
    name: service.name,
    address,
    drain: async () => kernel?.drain(),
    close: async () => {
      await closing.close()
      log.info({ event: 'service.stopped' })
    },
  }
}

function baseContext(
  service: AnyService,
  platform: Ground,
  instance: number,
  log: Logger,
  closing: ClosingStack,
): BaseContext<unknown> {
  const clock = platform.clock ?? systemClock
  const now = () => clock.now()
  const serviceTokens = openServiceTokens({ secret: platform.serviceSecret, now })
  const tracer = platform.tracing?.tracerOf({ name: service.name, instance })
  const client = closing.add(
    'client',
    openServiceClient({ self: service.name, registry: platform.registry, serviceTokens, tracer }),
  )
  const revocations = closing.add('revocations', watchRevocations({ client, clock, log }))
  return {
    name: service.name,
    instance,
    settings: readSettings(service.settings, platform.env),
    registry: platform.registry,
    cache: platform.cache,
    client,
    tokens: openTokenVerifier({ fetchKeys: () => client.call(Jwks), now, revocations }),
    revocations,
    serviceTokens,
    deriveKey: (purpose) => deriveKey(platform.serviceSecret, `${service.name} ${purpose}`),
    clock,
    ids: platform.ids ?? systemIds,
    log,
    metrics: openMetrics(service.name),
    tracer,
    crash: platform.crash,
    closing,
  }
}

async function listen(app: FastifyInstance, platform: Ground, port: number): Promise<string> {
  await app.listen({ host: platform.host, port })
  const address = app.server.address()
  if (address === null || typeof address === 'string') throw new Error('the HTTP server has no address')
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${host}:${address.port}`
}
