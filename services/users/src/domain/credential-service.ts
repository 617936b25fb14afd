import type { Caller } from '@cloudphone/contracts/access'
import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { findAccount, findPasswordHash } from '../db/account-repo.ts'
import { setPassword, verifyEmail } from '../db/lifecycle-repo.ts'
import { insertMail } from '../db/mail-repo.ts'
import { dropAccountTokens, findAccountToken, useAccountToken } from '../db/one-time-token-repo.ts'
import { endSessions } from '../db/revocation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import { hashOfSecret } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { weaknessOf } from './password.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { Revocations } from './revocations.ts'
import type { SignInThrottle } from './sign-in-throttle.ts'

/** Passwords changed and forgotten, e-mails proved. */
export class CredentialService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #hasher: PasswordHasher
  readonly #throttle: SignInThrottle
  readonly #revocations: Revocations
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    hasher: PasswordHasher
    throttle: SignInThrottle
    revocations: Revocations
    ids: Ids
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#hasher = deps.hasher
    this.#throttle = deps.throttle
    this.#revocations = deps.revocations
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
  }

  /**
   * Changes the caller's password; all sessions but the caller's end.
   * @throws ProblemError `wrong_password`, `weak_password`, `too_many_attempts`.
   */
  async changePassword(
    { userId, sessionId }: Caller,
    { oldPassword, newPassword }: { oldPassword: string; newPassword: string },
  ): Promise<void> {
    const attempt = { kind: 'code', who: userId, address: undefined } as const
    await this.#throttle.check(attempt)
    const account = await findAccount(this.#database.kysely, userId)
    const known = await findPasswordHash(this.#database.kysely, userId)
    if (account === undefined || !(await this.#hasher.matches(oldPassword, known))) {
      await this.#throttle.failed(attempt)
      throw problems.wrong_password()
    }
    await this.#throttle.check(attempt)
    const reason = weaknessOf(newPassword, account)
    if (reason !== undefined) throw problems.weak_password({ reason })
    const passwordHash = await this.#hasher.hash(newPassword)
    await this.#database.transaction(async (tx) => {
      await setPassword(tx, userId, passwordHash)
      await dropAccountTokens(tx, userId)
      const ended = await endSessions(tx, { userId, reason: 'revoked', exceptId: sessionId })
      for (const id of ended) await this.#revocations.revokeSession(tx, id)
      const { tenantId } = account
      await this.#audit.add(tx, { verb: 'password.change', target: userId, tenantId })
    })
    this.#telemetry.userChanged({ userId, by: userId, what: 'password' })
  }

  /**
   * Has a mail sent to an address, if an account has it; whether one has, is found out later, by who sends it.
   * @throws ProblemError `too_many_attempts`, for known and unknown addresses alike.
   */
  async forgot(email: string, address: string | undefined): Promise<void> {
    const attempt = { kind: 'forgot', who: email, address } as const
    await this.#throttle.check(attempt)
    await this.#throttle.failed(attempt)
    const mail = { id: this.#ids.next<'mail'>(), kind: 'password_reset', email } as const
    await this.#database.transaction((tx) => insertMail(tx, mail))
  }

  /**
   * Sets a password by the token of a mail, which also proves the e-mail; all sessions end, and wrong attempts are
   * forgotten. API keys stay.
   * @throws ProblemError `invalid_mail_token`, `weak_password`.
   */
  async reset(token: string, password: string): Promise<void> {
    const key = { tokenHash: hashOfSecret(token), purpose: 'password_reset' } as const
    // Looked at before the hashing, which is dear; decided by the one statement in the transaction.
    const ownerId = await findAccountToken(this.#database.kysely, key)
    const owner = ownerId && (await findAccount(this.#database.kysely, ownerId))
    if (!owner) throw problems.invalid_mail_token()
    const reason = weaknessOf(password, owner)
    if (reason !== undefined) throw problems.weak_password({ reason })
    const passwordHash = await this.#hasher.hash(password)
    await this.#database.transaction(async (tx) => {
      const used = await useAccountToken(tx, key)
      if (used === undefined || !(await setPassword(tx, used.userId, passwordHash))) {
        throw problems.invalid_mail_token()
      }
      await verifyEmail(tx, used)
      await dropAccountTokens(tx, used.userId)
      await this.#revocations.revokeUser(tx, used.userId)
      const { id: target, tenantId } = owner
      await this.#audit.add(tx, { verb: 'password.reset', target, tenantId, actor: target })
    })
    await this.#throttle.succeeded({ kind: 'account', who: owner.email, address: undefined })
    this.#telemetry.userChanged({ userId: owner.id, by: owner.id, what: 'password_reset' })
  }

  /** Has a mail sent by which the caller can prove the e-mail. @throws ProblemError `too_many_attempts`. */
  async requestVerification({ userId }: Caller): Promise<void> {
    const account = await findAccount(this.#database.kysely, userId)
    if (account === undefined) throw problems.user_not_found({ userId })
    const attempt = { kind: 'forgot', who: account.email, address: undefined } as const
    await this.#throttle.check(attempt)
    await this.#throttle.failed(attempt)
    const mail = { id: this.#ids.next<'mail'>(), kind: 'email_verification', email: account.email } as const
    await this.#database.transaction((tx) => insertMail(tx, mail))
  }

  /** Proves an e-mail by the token of a mail. @throws ProblemError `invalid_mail_token`. */
  async verifyEmail(token: string): Promise<void> {
    const key = { tokenHash: hashOfSecret(token), purpose: 'email_verification' } as const
    const userId = await this.#database.transaction(async (tx) => {
      const used = await useAccountToken(tx, key)
      if (used === undefined || !(await verifyEmail(tx, used))) throw problems.invalid_mail_token()
      const { userId: target } = used
      const tenantId = (await findAccount(tx, target))?.tenantId ?? null
      await this.#audit.add(tx, { verb: 'email.verify', target, tenantId, actor: target })
      return target
    })
    this.#telemetry.userChanged({ userId, by: userId, what: 'email_verified' })
  }
}
