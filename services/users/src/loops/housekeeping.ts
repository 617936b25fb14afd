import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { Identity } from '../domain/identity.ts'
import type { QuotaService } from '../domain/quota-service.ts'
import type { Revocations } from '../domain/revocations.ts'
import type { SessionService } from '../domain/session-service.ts'
import type { SigningKeyService } from '../domain/signing-key-service.ts'

/** What ends by time, in one instance at a time: reservations, sessions, keys. Two at once would do no harm. */
export function startHousekeeping(
  leases: Leases,
  {
    quotas,
    sessions,
    signingKeys,
    revocations,
    identity,
    everyMs,
  }: {
    quotas: QuotaService
    sessions: SessionService
    signingKeys: SigningKeyService
    revocations: Revocations
    identity: Pick<Identity, 'mails' | 'oidc' | 'throttle'>
    everyMs: number
  },
): LeasedLoop {
  return leases.loop({
    name: 'users.housekeeping',
    everyMs,
    work: async () => {
      await quotas.expire()
      await sessions.purge()
      await signingKeys.tend()
      await revocations.purge()
      await identity.mails.purge()
      await identity.oidc.purge()
      await identity.throttle.purge()
    },
  })
}
