import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { ServiceName } from '@cloudphone/contracts/services'
import type { SamplerName, TracingOptions } from '@cloudphone/observe/tracing'
import { type Env, readSettings, SettingError } from '@cloudphone/runtime/config'
import { z } from 'zod'

const samplers = [
  'always_on',
  'always_off',
  'traceidratio',
  'parentbased_always_on',
  'parentbased_always_off',
  'parentbased_traceidratio',
] as const satisfies readonly SamplerName[]
const port = z.coerce.number().int().min(1).max(65_400)

/** What the server itself reads; each service reads its own settings besides. Flags win over the environment. */
const ServerSettings = z.object({
  CLOUDPHONE_DATA_DIR: z.string().default('.cloudphone'),
  CLOUDPHONE_PORT_BASE: port.default(30_000),
  CLOUDPHONE_HOST: z.union([z.ipv4(), z.ipv6(), z.literal('localhost')]).default('127.0.0.1'),
  CLOUDPHONE_SERVICES: z
    .string()
    .default('all')
    .transform((value, context) => {
      if (value === 'all') return ServiceName.options
      const names = value.split(',').map((name) => name.trim())
      const unknown = names.find((name) => !ServiceName.safeParse(name).success)
      if (unknown === undefined) return names as ServiceName[]
      context.addIssue(`there is no service '${unknown}'; there are ${ServiceName.options.join(', ')}`)
      return z.NEVER
    }),
  CLOUDPHONE_LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'])
    .default('warn'),
  CLOUDPHONE_LOG_FORMAT: z.enum(['pretty', 'json']).optional(),
  CLOUDPHONE_ADMIN_EMAIL: z.email().optional(),
  CLOUDPHONE_ADMIN_PASSWORD: z.string().min(12).optional(),
  CLOUDPHONE_SERVICE_SECRET: z.string().min(32).optional(),
  CLOUDPHONE_AUDIT_KEEP_DAYS: z.coerce.number().int().min(1).max(36_500).default(365),
  CLOUDPHONE_CRASH_POINTS: z.string().optional(),
  DATABASE_URL: z.string().optional(),
  DATABASE_DIRECT_URL: z.string().optional(),
  DATABASE_POOL_SIZE: z.coerce.number().int().min(2).max(200).default(5),
  RABBITMQ_URL: z
    .url({ protocol: /^amqps?$/, error: 'must be amqp://user:password@host:port or amqps://...' })
    .optional(),
  REDIS_URL: z.url({ protocol: /^rediss?$/, error: 'must be redis://host:port or rediss://...' }).optional(),
  CONSUL_URL: z.url({ protocol: /^https?$/, error: 'must be http://host:8500 or https://...' }).optional(),
  // Named by Consul.
  CONSUL_HTTP_TOKEN: z.string().min(1).optional(),
  // Named by OpenTelemetry, as are their values; what its exporter reads besides (headers, compression) it reads itself.
  OTEL_EXPORTER_OTLP_ENDPOINT: z
    .url({ protocol: /^https?$/, error: 'must be http://host:4318 or https://...' })
    .optional(),
  OTEL_SERVICE_NAME: z.string().optional(),
  OTEL_TRACES_SAMPLER: z.enum(samplers).default('parentbased_always_on'),
  OTEL_TRACES_SAMPLER_ARG: z.coerce.number().min(0).max(1).default(1),
})

export interface Settings {
  readonly dataDir: string
  readonly portBase: number
  readonly host: string
  readonly services: readonly ServiceName[]
  readonly log: { level: z.infer<typeof ServerSettings>['CLOUDPHONE_LOG_LEVEL']; format: 'pretty' | 'json' }
  readonly admin: { email: string | undefined; password: string | undefined }
  readonly serviceSecret: string | undefined
  readonly auditKeepDays: number
  readonly crashPoints: string | undefined
  readonly database: { url: string | undefined; directUrl: string | undefined; poolSize: number }
  /** Undefined: events go over the database. */
  readonly rabbitmqUrl: string | undefined
  /** Undefined: each process counts and remembers for itself. */
  readonly redisUrl: string | undefined
  /** Undefined: services are sought where the port base says. */
  readonly consul: { url: string; token: string | undefined } | undefined
  /** Undefined: traces go nowhere, and no spans are made. */
  readonly tracing: Omit<TracingOptions, 'log' | 'metrics'> | undefined
  /** Handed on to each service, which picks its own. */
  readonly env: Env
}

/**
 * Reads the server's settings.
 * @throws SettingError with one line that names the setting, what it was and what is allowed.
 */
export function readServerSettings(env: Env, cwd: string): Settings {
  const read = readSettings(ServerSettings, env)
  const services = read.CLOUDPHONE_SERVICES
  if (services.length < ServiceName.options.length && read.DATABASE_URL === undefined)
    throw new SettingError(
      `Setting CLOUDPHONE_SERVICES=${services.join(',')} needs DATABASE_URL: the parts of a platform meet in one database, and an embedded one serves a single process`,
    )
  return {
    dataDir: absolute(read.CLOUDPHONE_DATA_DIR, cwd),
    portBase: read.CLOUDPHONE_PORT_BASE,
    host: read.CLOUDPHONE_HOST,
    services,
    log: {
      level: read.CLOUDPHONE_LOG_LEVEL,
      format: read.CLOUDPHONE_LOG_FORMAT ?? (process.stderr.isTTY ? 'pretty' : 'json'),
    },
    admin: { email: read.CLOUDPHONE_ADMIN_EMAIL, password: read.CLOUDPHONE_ADMIN_PASSWORD },
    serviceSecret: read.CLOUDPHONE_SERVICE_SECRET,
    auditKeepDays: read.CLOUDPHONE_AUDIT_KEEP_DAYS,
    crashPoints: read.CLOUDPHONE_CRASH_POINTS,
    database: {
      url: read.DATABASE_URL,
      directUrl: read.DATABASE_DIRECT_URL,
      poolSize: read.DATABASE_POOL_SIZE,
    },
    rabbitmqUrl: read.RABBITMQ_URL,
    redisUrl: read.REDIS_URL,
    consul:
      read.CONSUL_URL === undefined ? undefined : { url: read.CONSUL_URL, token: read.CONSUL_HTTP_TOKEN },
    tracing:
      read.OTEL_EXPORTER_OTLP_ENDPOINT === undefined
        ? undefined
        : {
            endpoint: read.OTEL_EXPORTER_OTLP_ENDPOINT,
            serviceName: read.OTEL_SERVICE_NAME,
            sampler: read.OTEL_TRACES_SAMPLER,
            ratio: read.OTEL_TRACES_SAMPLER_ARG,
          },
    env,
  }
}

function absolute(path: string, cwd: string): string {
  if (path.startsWith('~/')) return join(homedir(), path.slice(2))
  return isAbsolute(path) ? path : resolve(cwd, path)
}
