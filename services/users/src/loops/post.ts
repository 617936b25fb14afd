import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { MailService } from '../domain/mail-service.ts'

/** Sends the mails that wait, in one instance at a time. Two at once would send none twice: each is taken by one. */
export function startPost(leases: Leases, mails: MailService, everyMs: number): LeasedLoop {
  return leases.loop({ name: 'users.post', everyMs, work: ({ signal }) => mails.deliver(signal) })
}
