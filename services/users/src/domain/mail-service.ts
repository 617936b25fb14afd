import type { Database } from '@cloudphone/db/database'
import { type Mail, MailError, type Mailer } from '@cloudphone/mail/mailer'
import { findCredentials } from '../db/account-repo.ts'
import {
  type DueMail,
  deleteMail,
  failMail,
  noteMailError,
  purgeMails,
  takeDueMails,
} from '../db/mail-repo.ts'
import { findInvitation, purgeTokens, putAccountToken, putInvitation } from '../db/one-time-token-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { findTenantBySlug } from '../db/tenant-repo.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { InvitationRecord } from './invitation.ts'
import { lifeMinutesOf, type MailText, textOfKnownAccount, textWithToken } from './mail-text.ts'
import { tokenHashOf, tokenOf } from './one-time-token.ts'

const mostAttempts = 12
const batch = 20

/**
 * Sends the mails that wait, at least once each. Only here it is found out whether an address has an account: who asked
 * for the mail has been answered long before.
 */
export class MailService {
  readonly #database: Database<UsersSchema>
  readonly #mailer: Mailer
  readonly #tokenKey: Buffer
  readonly #telemetry: UsersTelemetry
  readonly #linkUrl: string | undefined
  readonly #registrationTenant: string

  constructor(deps: {
    database: Database<UsersSchema>
    mailer: Mailer
    tokenKey: Buffer
    telemetry: UsersTelemetry
    /** The page that takes the tokens of mails, where there is one. */
    linkUrl: string | undefined
    /** The slug of the tenant into which people register. */
    registrationTenant: string
  }) {
    this.#database = deps.database
    this.#mailer = deps.mailer
    this.#tokenKey = deps.tokenKey
    this.#telemetry = deps.telemetry
    this.#linkUrl = deps.linkUrl
    this.#registrationTenant = deps.registrationTenant
  }

  /** Sends what is due. A mail that is not taken over waits 30 s, a minute, and so on up to an hour; the 12th time is the last. */
  async deliver(signal?: AbortSignal): Promise<void> {
    for (;;) {
      const due = await takeDueMails(this.#database.kysely, {
        ...{ limit: batch, firstPauseSeconds: 30, longestPauseSeconds: 3600 },
      })
      for (const mail of due) {
        if (signal?.aborted) return
        await this.#deliverOne(mail)
      }
      if (due.length < batch) return
    }
  }

  /** Forgets mails that were given up, and tokens that nobody can use any more. */
  async purge(): Promise<void> {
    await purgeMails(this.#database.kysely)
    await purgeTokens(this.#database.kysely)
  }

  async #deliverOne(due: DueMail): Promise<void> {
    const { id, kind } = due
    try {
      const mail = await this.#compose(due)
      if (mail !== undefined) await this.#mailer.send(mail)
      await deleteMail(this.#database.kysely, id)
      this.#telemetry.mailDone({ mailId: id, kind, outcome: mail === undefined ? 'nobody' : 'sent' })
    } catch (error) {
      if (!(error instanceof MailError)) throw error
      const cause = error.cause instanceof Error ? `: ${error.cause.message}` : ''
      if (error.permanent || due.attempts >= mostAttempts) {
        await failMail(this.#database.kysely, id, error.message + cause)
        this.#telemetry.mailDone({ mailId: id, kind, outcome: 'failed' })
      } else {
        await noteMailError(this.#database.kysely, id, error.message + cause)
        this.#telemetry.mailDone({ mailId: id, kind, outcome: 'retried' })
      }
    }
  }

  /** Undefined when nobody is to have this mail (any more). */
  async #compose(due: DueMail): Promise<Mail | undefined> {
    const text = await this.#textOf(due)
    return text && { id: due.id, to: due.email, ...text }
  }

  async #textOf({ id, kind, email }: DueMail): Promise<MailText | undefined> {
    const withToken = () => textWithToken(kind, tokenOf(this.#tokenKey, id), this.#linkUrl)
    if (kind === 'invitation') {
      return (await findInvitation(this.#database.kysely, id)) && withToken()
    }
    const known = await findCredentials(this.#database.kysely, email)
    if (kind === 'registration') {
      if (known !== undefined) return textOfKnownAccount
      return (await this.#inviteRegistrant(id, email)) && withToken()
    }
    if (known === undefined || known.account.status !== 'active') return undefined
    const token = {
      ...{ id, purpose: kind, email, userId: known.account.id },
      ...{ tokenHash: tokenHashOf(this.#tokenKey, id), lifeMinutes: lifeMinutesOf(kind) },
    }
    return (await this.#database.transaction((tx) => putAccountToken(tx, token))) ? withToken() : undefined
  }

  async #inviteRegistrant(id: string, email: string): Promise<InvitationRecord | undefined> {
    return this.#database.transaction(async (tx) => {
      const tenant = await findTenantBySlug(tx, this.#registrationTenant)
      if (tenant === undefined || tenant.status !== 'active') return undefined
      return putInvitation(tx, {
        ...{ id, email, tenantId: tenant.id, role: 'member', invitedBy: null },
        ...{ tokenHash: tokenHashOf(this.#tokenKey, id), lifeMinutes: lifeMinutesOf('registration') },
      })
    })
  }
}
