import { z } from 'zod'
import type { QuotaDefaults } from './domain/quota.ts'

const slug = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/)
const isLoopback = (url: string) => ['127.0.0.1', '[::1]', 'localhost'].includes(new URL(url).hostname)

/** An OpenID provider by which people of one tenant sign in. */
const OidcProvider = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9-]{0,31}$/),
  issuer: z
    .url({ protocol: /^https?$/ })
    .refine(
      (url) => url.startsWith('https:') || isLoopback(url),
      'an issuer beyond this machine needs https',
    ),
  clientId: z.string().min(1),
  clientSecret: z.string().min(1),
  /** Only accounts of this tenant are found, or made. */
  tenant: slug.default('default'),
  /** Whether who has no account gets one, as a member. */
  create: z.boolean().default(false),
  /** Where the provider may send people back to, besides this machine of theirs (RFC 8252, section 7.3). */
  redirectUris: z.array(z.url({ protocol: /^https?$/ })).default([]),
})

const OidcProviders = z
  .string()
  .default('[]')
  .transform((text, context) => {
    try {
      return JSON.parse(text) as unknown
    } catch {
      context.addIssue('must be a JSON list of providers')
      return z.NEVER
    }
  })
  .pipe(z.array(OidcProvider))
  .refine((all) => new Set(all.map(({ name }) => name)).size === all.length, 'each needs a name of its own')

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
  /** How people get accounts that no administrator makes: not at all, by invitation, or as they like. */
  USERS_REGISTRATION: z.enum(['closed', 'invitation', 'open']).default('invitation'),
  /** The slug of the tenant that they get into where it is open. */
  USERS_REGISTRATION_TENANT: slug.default('default'),
  /** Wrong attempts to sign in, by account and by address, until there are pauses. */
  USERS_FREE_ATTEMPTS_PER_ACCOUNT: z.coerce.number().int().min(2).max(1_000_000).default(10),
  USERS_FREE_ATTEMPTS_PER_ADDRESS: z.coerce.number().int().min(2).max(1_000_000).default(100),
  /** The page that takes the tokens of mails: links lead to `<url>/password_reset?token=...` and the like. */
  USERS_LINK_URL: z
    .url({ protocol: /^https?$/ })
    .transform((url) => url.replace(/\/+$/, ''))
    .optional(),
  /** Where mails go without a mail server; the server names a folder of the data directory. */
  MAIL_FOLDER: z.string().default('.cloudphone/mail'),
  MAIL_FROM: z.string().min(3).max(320).default('Cloudphone <no-reply@cloudphone.local>'),
  /** How often the mails that wait are looked for. */
  MAIL_EVERY_MS: z.coerce.number().int().min(50).max(3_600_000).default(2_000),
  /** Without it mails are put into a folder. */
  SMTP_URL: z.url({ protocol: /^smtps?$/ }).optional(),
  OIDC_PROVIDERS: OidcProviders,
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
