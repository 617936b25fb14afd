import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Mailer } from '@cloudphone/mail/mailer'
import type { Clock } from '@cloudphone/observe/clock'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import type { UsersSchema } from '../db/schema.ts'
import { type Secrets, systemSecrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { openVault } from '../vault.ts'
import type { TokenSigner } from './access-token.ts'
import { AccountService } from './account-service.ts'
import { CredentialService } from './credential-service.ts'
import { InvitationService, type Registration } from './invitation-service.ts'
import { LifecycleService } from './lifecycle-service.ts'
import { MailService } from './mail-service.ts'
import { OidcService, type Provider } from './oidc-service.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { Revocations } from './revocations.ts'
import { SecondFactorService } from './second-factor-service.ts'
import { SessionService } from './session-service.ts'
import { SignInThrottle, type ThrottleLimits } from './sign-in-throttle.ts'
import { TenantService } from './tenant-service.ts'

/** What the services about people stand on. */
export interface IdentityGround {
  readonly database: Database<UsersSchema>
  readonly outbox: Outbox
  readonly audit: Audit
  readonly revocations: Revocations
  readonly signer: TokenSigner
  readonly hasher: PasswordHasher
  readonly mailer: Mailer
  readonly clock: Clock
  readonly ids: Ids
  readonly telemetry: UsersTelemetry
  readonly secrets?: Secrets
  /** 32 bytes for each purpose, the same in all instances. */
  deriveKey(purpose: string): Buffer
}

export interface IdentityOptions {
  readonly limits: ThrottleLimits
  readonly registration: Registration
  readonly registrationTenant: string
  readonly linkUrl: string | undefined
  readonly providers: readonly Provider[]
  readonly accessTokenSeconds: number
  readonly refreshTokenDays: number
}

/** The services about people, wired to each other. */
export function openIdentity(ground: IdentityGround, options: IdentityOptions) {
  const { secrets = systemSecrets, database, deriveKey } = ground
  const base = { ...ground, secrets, tokenKey: deriveKey('one-time tokens') }
  const throttle = new SignInThrottle({ database, limits: options.limits })
  const accounts = new AccountService(base)
  const factors = new SecondFactorService({
    ...base,
    throttle,
    vault: openVault(deriveKey('second factors')),
  })
  const sessions = new SessionService({ ...base, ...options, throttle, factors })
  const invitations = new InvitationService({ ...base, ...options, accounts, throttle })
  return {
    ...{ throttle, accounts, factors, sessions, invitations },
    credentials: new CredentialService({ ...base, throttle }),
    lifecycle: new LifecycleService({ ...base, throttle }),
    mails: new MailService({ ...base, ...options }),
    oidc: new OidcService({ ...base, ...options, accounts, sessions }),
    tenants: new TenantService({ ...base, invitations }),
  }
}
export type Identity = ReturnType<typeof openIdentity>
