import { z } from 'zod'
import type { QuotaDefaults } from './domain/quota.ts'

const limit = (byDefault: number) => z.coerce.number().int().min(0).max(2_000_000_000).default(byDefault)

/** The settings of the users service. The first administrator is named by the server, which keeps the credentials. */
export const UsersSettings = z.object({
  CLOUDPHONE_ADMIN_EMAIL: z
    .email()
    .max(254)
    .transform((value) => value.toLowerCase()),
  CLOUDPHONE_ADMIN_PASSWORD: z.string().min(12).max(256),
  USERS_ACCESS_TOKEN_SECONDS: z.coerce.number().int().min(30).max(86_400).default(900),
  /** How long a session lives without being used. */
  USERS_REFRESH_TOKEN_DAYS: z.coerce.number().int().min(1).max(365).default(30),
  /** The signing key of access tokens is changed when it is older; 0: only by hand. */
  USERS_SIGNING_KEY_DAYS: z.coerce.number().int().min(0).max(3_650).default(90),
  /** Limits of users whose own were never set: phones, CPU cores, MB of memory, MB of storage. */
  USERS_DEFAULT_MAX_DEVICES: limit(100),
  USERS_DEFAULT_MAX_CPU: limit(400),
  USERS_DEFAULT_MAX_MEMORY: limit(819_200),
  USERS_DEFAULT_MAX_STORAGE: limit(6_553_600),
  /** Pooled phones in use at a time. */
  USERS_DEFAULT_MAX_SESSIONS: limit(100),
  /** The same for all users of a tenant together. */
  USERS_TENANT_MAX_DEVICES: limit(10_000),
  USERS_TENANT_MAX_CPU: limit(100_000),
  USERS_TENANT_MAX_MEMORY: limit(200_000_000),
  USERS_TENANT_MAX_STORAGE: limit(2_000_000_000),
  USERS_TENANT_MAX_SESSIONS: limit(10_000),
  /** How often counters of quota are compared with the reservations they count. */
  USERS_RECOUNT_EVERY_MS: z.coerce.number().int().min(50).max(3_600_000).default(60_000),
  USERS_EXPIRY_EVERY_MS: z.coerce.number().int().min(50).max(3_600_000).default(5_000),
})
export type UsersSettings = z.output<typeof UsersSettings>

/** The limits of users and tenants whose own were never set. */
export function quotaDefaults(settings: UsersSettings): QuotaDefaults {
  return {
    user: {
      maxDevices: settings.USERS_DEFAULT_MAX_DEVICES,
      maxCpu: settings.USERS_DEFAULT_MAX_CPU,
      maxMemory: settings.USERS_DEFAULT_MAX_MEMORY,
      maxStorage: settings.USERS_DEFAULT_MAX_STORAGE,
      maxSessions: settings.USERS_DEFAULT_MAX_SESSIONS,
    },
    tenant: {
      maxDevices: settings.USERS_TENANT_MAX_DEVICES,
      maxCpu: settings.USERS_TENANT_MAX_CPU,
      maxMemory: settings.USERS_TENANT_MAX_MEMORY,
      maxStorage: settings.USERS_TENANT_MAX_STORAGE,
      maxSessions: settings.USERS_TENANT_MAX_SESSIONS,
    },
  }
}
