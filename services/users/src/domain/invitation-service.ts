/* Terminology:
 * - invitation: the right to make one account, in one tenant, with one role; who reads the mail has it
 * - registration: an invitation that somebody asks for without being invited, where that is allowed
 */
import type { Caller, Role } from '@cloudphone/contracts/access'
import type { Ids, TenantId } from '@cloudphone/contracts/id'
import type { Database, Tx } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { findCredentials } from '../db/account-repo.ts'
import { insertMail } from '../db/mail-repo.ts'
import {
  deleteInvitation,
  findInvitationByToken,
  listInvitations,
  putInvitation,
  useInvitation,
} from '../db/one-time-token-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import { hashOfSecret } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { Account } from './account.ts'
import type { AccountService } from './account-service.ts'
import type { InvitationRecord } from './invitation.ts'
import { lifeMinutesOf } from './mail-text.ts'
import { tokenHashOf } from './one-time-token.ts'
import { weaknessOf } from './password.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { SignInThrottle } from './sign-in-throttle.ts'

export type Registration = 'closed' | 'invitation' | 'open'

/** How people get accounts by e-mail. */
export class InvitationService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #accounts: AccountService
  readonly #hasher: PasswordHasher
  readonly #throttle: SignInThrottle
  readonly #ids: Ids
  readonly #tokenKey: Buffer
  readonly #registration: Registration
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    accounts: AccountService
    hasher: PasswordHasher
    throttle: SignInThrottle
    ids: Ids
    tokenKey: Buffer
    registration: Registration
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#accounts = deps.accounts
    this.#hasher = deps.hasher
    this.#throttle = deps.throttle
    this.#ids = deps.ids
    this.#tokenKey = deps.tokenKey
    this.#registration = deps.registration
    this.#telemetry = deps.telemetry
  }

  /** Invites somebody into the caller's tenant. @throws ProblemError `email_taken`, `registration_closed`. */
  async invite(caller: Caller, wanted: { email: string; role: Role }): Promise<InvitationRecord> {
    if (this.#registration === 'closed') throw problems.registration_closed()
    const { tenantId } = caller
    return this.#database.transaction(async (tx) => {
      const made = await this.inviteInto(tx, { ...wanted, tenantId, invitedBy: caller.userId })
      await this.#audit.add(tx, { verb: 'invitation.create', target: made.id, tenantId, after: wanted })
      return made
    })
  }

  /** The same for any tenant, in a transaction of the caller's. @throws ProblemError `email_taken`. */
  async inviteInto(
    tx: Tx<UsersSchema>,
    wanted: { email: string; role: Role; tenantId: TenantId; invitedBy: Caller['userId'] },
  ): Promise<InvitationRecord> {
    const { email, tenantId } = wanted
    if ((await findCredentials(tx, email)) !== undefined) throw problems.email_taken({ email })
    const id = this.#ids.next<'mail'>()
    const made = await putInvitation(tx, {
      ...{ ...wanted, id, tokenHash: tokenHashOf(this.#tokenKey, id) },
      lifeMinutes: lifeMinutesOf('invitation'),
    })
    if (made === undefined) throw new Error('an invitation was over before it began')
    await insertMail(tx, { id, kind: 'invitation', email })
    this.#telemetry.invited({ invitationId: id, tenantId })
    return made
  }

  /** The open invitations of the caller's tenant, the newest first; one more than `limit` when there are more. */
  list(
    { tenantId }: Caller,
    page: { beforeId: string | undefined; limit: number },
  ): Promise<InvitationRecord[]> {
    return listInvitations(this.#database.kysely, { tenantId, ...page })
  }

  /** Takes one back. @throws ProblemError `invitation_not_found`. */
  async revoke({ tenantId }: Caller, invitationId: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const deleted = await deleteInvitation(tx, { id: invitationId, tenantId })
      if (!deleted) throw problems.invitation_not_found({ invitationId })
      await this.#audit.add(tx, { verb: 'invitation.revoke', target: invitationId, tenantId })
    })
  }

  /**
   * Has a mail sent by which its reader can make an account, or which says that there is one: who asks learns neither.
   * @throws ProblemError `registration_closed`, `too_many_attempts`.
   */
  async register(email: string, address: string | undefined): Promise<void> {
    if (this.#registration !== 'open') throw problems.registration_closed()
    const attempt = { kind: 'forgot', who: email, address } as const
    await this.#throttle.check(attempt)
    await this.#throttle.failed(attempt)
    const mail = { id: this.#ids.next<'mail'>(), kind: 'registration', email } as const
    await this.#database.transaction((tx) => insertMail(tx, mail))
  }

  /**
   * Makes the account that an invitation is for; its e-mail is proved by that.
   * @throws ProblemError `invalid_mail_token`, `email_taken`, `weak_password`, `registration_closed`.
   */
  async accept({
    token,
    name,
    password,
  }: {
    token: string
    name: string
    password: string
  }): Promise<Account> {
    if (this.#registration === 'closed') throw problems.registration_closed()
    const tokenHash = hashOfSecret(token)
    // Looked at before the hashing, which is dear; decided by the one statement in the transaction.
    const open = await findInvitationByToken(this.#database.kysely, tokenHash)
    if (open === undefined) throw problems.invalid_mail_token()
    const reason = weaknessOf(password, { email: open.email, name })
    if (reason !== undefined) throw problems.weak_password({ reason })
    const passwordHash = await this.#hasher.hash(password)
    return this.#database.transaction(async (tx) => {
      const invitation = await useInvitation(tx, tokenHash)
      if (invitation === undefined) throw problems.invalid_mail_token()
      const { email, role, tenantId } = invitation
      const made = await this.#accounts.insert(tx, {
        ...{ email, role, tenantId, name, passwordHash, emailVerified: true },
      })
      if (made === undefined) throw problems.email_taken({ email })
      return made
    })
  }
}
