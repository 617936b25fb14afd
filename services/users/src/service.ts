import { listener, notifier } from '@cloudphone/db/listen'
import { openFolderMailer } from '@cloudphone/mail/folder-mailer'
import type { Mailer } from '@cloudphone/mail/mailer'
import { openSmtpMailer } from '@cloudphone/mail/smtp-mailer'
import { defineService } from '@cloudphone/runtime/service'
import { quotaDefaults, UsersSettings } from './config.ts'
import type { UsersSchema } from './db/schema.ts'
import { listPublicKeys } from './db/signing-key-repo.ts'
import { openTokenSigner } from './domain/access-token.ts'
import { exchangedTokenSeconds } from './domain/api-key.ts'
import { ApiKeyService } from './domain/api-key-service.ts'
import { openIdentity } from './domain/identity.ts'
import { judgeInvariants } from './domain/invariants.ts'
import { openPasswordHasher } from './domain/password-hasher.ts'
import { QuotaService } from './domain/quota-service.ts'
import { Revocations } from './domain/revocations.ts'
import { limitsOf } from './domain/sign-in-throttle.ts'
import { ensureSigningKey } from './domain/signing-key.ts'
import { SigningKeyService } from './domain/signing-key-service.ts'
import { accountRoutes } from './http/account.routes.ts'
import { identityRoutes } from './http/identity.routes.ts'
import { quotaRoutes } from './http/quota.routes.ts'
import { sessionRoutes } from './http/session.routes.ts'
import { tenantRoutes } from './http/tenant.routes.ts'
import { startHousekeeping } from './loops/housekeeping.ts'
import { startPost } from './loops/post.ts'
import { startQuotaRecount } from './loops/quota-recount.ts'
import { systemSecrets as secrets } from './secrets.ts'
import { openTelemetry } from './telemetry.ts'

const revocationChannel = 'users.revocations'

/** Accounts, sessions, API keys and quota. */
export const users = defineService<typeof UsersSettings, UsersSchema>({
  name: 'users',
  settings: UsersSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async (context) => {
    const { settings, database, outbox, audit, leases, clock, ids, log, metrics, closing, deriveKey } =
      context
    const telemetry = openTelemetry(log, metrics)
    const wakes = { url: database.directUrl, log, channels: [revocationChannel] }
    const bell = closing.add('bell', notifier({ ...wakes, applicationName: 'users bell' }))
    const revocations = new Revocations({
      ...{ database, clock, announce: () => bell.notify(revocationChannel) },
      keepSeconds: Math.max(settings.USERS_ACCESS_TOKEN_SECONDS, 900) + 300,
    })
    const signer = openTokenSigner(() => ensureSigningKey(database.kysely, telemetry), clock)
    const signingKeys = new SigningKeyService({
      ...{ database, revocations, audit, telemetry },
      keepSeconds: Math.max(settings.USERS_ACCESS_TOKEN_SECONDS, exchangedTokenSeconds) + 60,
      maxAgeDays: settings.USERS_SIGNING_KEY_DAYS,
    })
    const ears = listener({
      ...{ ...wakes, applicationName: 'users ears' },
      onNotify: () => {
        signer.forgetKey()
        revocations.wake()
      },
    })
    closing.add('ears', ears)
    const hasher = await openPasswordHasher(secrets.next())
    const mailer = closing.add('mailer', await openMailer(settings))
    const identity = openIdentity(
      { database, outbox, audit, revocations, signer, hasher, mailer, clock, ids, telemetry, deriveKey },
      {
        limits: limitsOf({
          account: settings.USERS_FREE_ATTEMPTS_PER_ACCOUNT,
          address: settings.USERS_FREE_ATTEMPTS_PER_ADDRESS,
        }),
        registration: settings.USERS_REGISTRATION,
        registrationTenant: settings.USERS_REGISTRATION_TENANT,
        linkUrl: settings.USERS_LINK_URL,
        providers: settings.OIDC_PROVIDERS,
        accessTokenSeconds: settings.USERS_ACCESS_TOKEN_SECONDS,
        refreshTokenDays: settings.USERS_REFRESH_TOKEN_DAYS,
      },
    )
    const { accounts, sessions, mails } = identity
    const apiKeys = new ApiKeyService({ database, revocations, audit, signer, secrets, ids, telemetry })
    const defaults = quotaDefaults(settings)
    const quotas = new QuotaService({ database, outbox, audit, telemetry, defaults })
    await accounts.ensureAdmin({
      email: settings.CLOUDPHONE_ADMIN_EMAIL,
      password: settings.CLOUDPHONE_ADMIN_PASSWORD,
    })
    const publicKeys = () => listPublicKeys(database.kysely)
    return {
      routes: [
        ...accountRoutes({ sessions, accounts, apiKeys, publicKeys }),
        ...sessionRoutes({ sessions, signingKeys, revocations }),
        ...identityRoutes(identity),
        ...tenantRoutes(identity.tenants),
        ...quotaRoutes(quotas),
      ],
      invariants: () => judgeInvariants(database),
      onReady: async () => {
        const loop = startHousekeeping(leases, {
          ...{ quotas, sessions, signingKeys, revocations, identity },
          everyMs: settings.USERS_EXPIRY_EVERY_MS,
        })
        closing.defer('housekeeping', () => loop.stop())
        const post = startPost(leases, mails, settings.MAIL_EVERY_MS)
        closing.defer('post', () => post.stop())
        const recount = startQuotaRecount(leases, {
          ...{ database, defaults, telemetry },
          everyMs: settings.USERS_RECOUNT_EVERY_MS,
        })
        closing.defer('quota recount', () => recount.stop())
      },
    }
  },
})

async function openMailer({
  SMTP_URL: url,
  MAIL_FROM: from,
  MAIL_FOLDER: folder,
}: UsersSettings): Promise<Mailer> {
  return url === undefined ? openFolderMailer({ folder, from }) : openSmtpMailer({ url, from })
}
