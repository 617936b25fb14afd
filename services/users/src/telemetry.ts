import type { Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'

type SignInRefusal = 'unknown' | 'password' | 'suspended' | 'second_factor' | 'oidc'

type UserChange =
  | 'name'
  | 'role'
  | 'suspended'
  | 'activated'
  | 'deleted'
  | 'unlocked'
  | 'password'
  | 'password_reset'
  | 'email_verified'
  | 'second_factor_on'
  | 'second_factor_off'
  | 'recovery_codes'

/** One function per business fact: a log line and a counter. E-mails and secrets stay out of both. */
export interface UsersTelemetry {
  userCreated(fact: { userId: UserId; tenantId: TenantId; role: Role }): void
  adminEnsured(fact: { userId: UserId; made: 'now' | 'before' }): void
  signedIn(fact: { userId: UserId; sessionId: string }): void
  signInRefused(fact: { reason: SignInRefusal }): void
  sessionRevoked(fact: { sessionId: string; reason: 'logout' | 'reuse' | 'revoked' }): void
  userChanged(fact: { userId: UserId; by: UserId; what: UserChange }): void
  mailDone(fact: { mailId: string; kind: string; outcome: 'sent' | 'nobody' | 'retried' | 'failed' }): void
  invited(fact: { invitationId: string; tenantId: TenantId }): void
  tenantChanged(fact: { tenantId: TenantId; what: 'made' | 'renamed' | 'suspended' | 'activated' }): void
  identityLinked(fact: { userId: UserId; issuer: string }): void
  apiKeyMade(fact: { userId: UserId; apiKeyId: string }): void
  apiKeyRevoked(fact: { userId: UserId; apiKeyId: string }): void
  quotaReserved(fact: { userId: UserId; reservationId: string }): void
  quotaRefused(fact: { userId: UserId; whose: string; resource: string }): void
  quotaLimitsSet(fact: { whose: string; id: string; by: UserId }): void
  quotaRecounted(fact: { whose: string; id: string; counted: string; held: string }): void
  quotaReleased(fact: { reservationId: string }): void
  quotaExpired(fact: { reservationIds: readonly string[] }): void
  signingKeyMade(fact: { kid: string }): void
  signingKeysRevoked(fact: { kid: string }): void
}

/** Reports to a log and to metrics. */
export function openTelemetry(log: Logger, metrics: Metrics): UsersTelemetry {
  const signIns = metrics.counter({
    name: 'users_sign_ins_total',
    help: 'Attempts to sign in, by outcome.',
    labels: ['outcome'],
  })
  const revoked = metrics.counter({
    name: 'users_sessions_revoked_total',
    help: 'Sessions ended before their time, by reason; `reuse` means that a refresh token was stolen or replayed.',
    labels: ['reason'],
  })
  const quota = metrics.counter({
    name: 'users_quota_reservations_total',
    help: 'Quota reservations, by what became of them.',
    labels: ['outcome'],
  })
  const recounted = metrics.counter({
    name: 'users_quota_recounts_total',
    help: 'Counters of quota that differed from their reservations and were set right, by whose they were.',
    labels: ['whose'],
  })
  const made = metrics.counter({ name: 'users_created_total', help: 'Accounts made.', labels: ['role'] })
  const changed = metrics.counter({
    name: 'users_changes_total',
    help: 'Changes of accounts, by what was changed.',
    labels: ['what'],
  })
  const mails = metrics.counter({
    name: 'users_mails_total',
    help: 'Mails, by what became of them; `retried` for a while means that the mail server does not take them.',
    labels: ['outcome'],
  })
  return {
    userChanged: (fact) => {
      changed.inc({ what: fact.what })
      log.info({ event: 'user.changed', ...fact })
    },
    mailDone: (fact) => {
      mails.inc({ outcome: fact.outcome })
      if (fact.outcome === 'failed' || fact.outcome === 'retried')
        log.warn({ event: 'mail.not_sent', ...fact })
      else log.info({ event: 'mail.done', ...fact })
    },
    invited: (fact) => log.info({ event: 'user.invited', ...fact }),
    tenantChanged: (fact) => log.info({ event: 'tenant.changed', ...fact }),
    identityLinked: (fact) => log.info({ event: 'identity.linked', ...fact }),
    userCreated: (fact) => {
      made.inc({ role: fact.role })
      log.info({ event: 'user.created', ...fact })
    },
    adminEnsured: (fact) => log.info({ event: 'admin.ensured', ...fact }),
    signedIn: (fact) => {
      signIns.inc({ outcome: 'accepted' })
      log.info({ event: 'session.started', ...fact })
    },
    signInRefused: (fact) => {
      signIns.inc({ outcome: fact.reason })
      log.warn({ event: 'session.refused', ...fact })
    },
    sessionRevoked: (fact) => {
      revoked.inc({ reason: fact.reason })
      if (fact.reason === 'reuse') log.warn({ event: 'session.revoked', ...fact })
      else log.info({ event: 'session.revoked', ...fact })
    },
    apiKeyMade: (fact) => log.info({ event: 'api_key.made', ...fact }),
    apiKeyRevoked: (fact) => log.info({ event: 'api_key.revoked', ...fact }),
    quotaReserved: (fact) => {
      quota.inc({ outcome: 'reserved' })
      log.debug({ event: 'quota.reserved', ...fact })
    },
    quotaRefused: (fact) => {
      quota.inc({ outcome: 'refused' })
      log.info({ event: 'quota.refused', ...fact })
    },
    quotaReleased: (fact) => {
      quota.inc({ outcome: 'released' })
      log.debug({ event: 'quota.released', ...fact })
    },
    quotaExpired: ({ reservationIds }) => {
      quota.inc({ outcome: 'expired' }, reservationIds.length)
      log.warn({ event: 'quota.expired', reservationIds })
    },
    quotaLimitsSet: (fact) => log.info({ event: 'quota.limits_set', ...fact }),
    quotaRecounted: (fact) => {
      recounted.inc({ whose: fact.whose })
      log.error({ event: 'quota.recounted', ...fact })
    },
    signingKeyMade: (fact) => log.info({ event: 'signing_key.made', ...fact }),
    signingKeysRevoked: (fact) => log.warn({ event: 'signing_key.all_revoked', ...fact }),
  }
}
