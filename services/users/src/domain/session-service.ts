import type { Caller } from '@cloudphone/contracts/access'
import type { Ids, UserId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { findAccount, findCredentials } from '../db/account-repo.ts'
import { endSessions } from '../db/revocation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import {
  endSession,
  holdAccount,
  insertSession,
  insertToken,
  listSessions,
  purgeSessions,
  revokeByToken,
  revokeReused,
  useToken,
} from '../db/session-repo.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { TokenSigner } from './access-token.ts'
import { type Account, assertMayManage, assertMaySee, callerOf } from './account.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { Revocations } from './revocations.ts'
import type { SecondFactorService } from './second-factor-service.ts'
import type { SessionRecord } from './session.ts'
import type { Attempt, SignInThrottle } from './sign-in-throttle.ts'

/** What a sign-in or a refresh hands out. */
export interface Grant {
  readonly accessToken: string
  readonly refreshToken: string
  readonly expiresInSeconds: number
  readonly account: Account
}

export interface SignIn {
  readonly email: string
  readonly password: string
  /** Of the second factor, or a recovery code. */
  readonly code?: string | undefined
  /** Where the attempt comes from; undefined from within. */
  readonly address?: string | undefined
}

type Refreshed =
  | { readonly kind: 'granted'; readonly account: Account; readonly sessionId: string }
  | { readonly kind: 'refused'; readonly revoked: string | undefined }

const endedSessionDays = 30

/** Sessions: sign in, refresh, sign out. */
export class SessionService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #revocations: Revocations
  readonly #hasher: PasswordHasher
  readonly #throttle: SignInThrottle
  readonly #factors: SecondFactorService
  readonly #signer: TokenSigner
  readonly #secrets: Secrets
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry
  readonly #accessTokenSeconds: number
  readonly #refreshTokenDays: number

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    revocations: Revocations
    hasher: PasswordHasher
    throttle: SignInThrottle
    factors: SecondFactorService
    signer: TokenSigner
    secrets: Secrets
    ids: Ids
    telemetry: UsersTelemetry
    accessTokenSeconds: number
    refreshTokenDays: number
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#revocations = deps.revocations
    this.#hasher = deps.hasher
    this.#throttle = deps.throttle
    this.#factors = deps.factors
    this.#signer = deps.signer
    this.#secrets = deps.secrets
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
    this.#accessTokenSeconds = deps.accessTokenSeconds
    this.#refreshTokenDays = deps.refreshTokenDays
  }

  /**
   * Signs in. An unknown e-mail costs the same time and answers the same as a wrong password.
   * @throws ProblemError `invalid_credentials`, `too_many_attempts`; to who knows the password also `user_suspended`,
   * `second_factor_required` and `wrong_code`.
   */
  async login({ email, password, code, address }: SignIn): Promise<Grant> {
    const attempt: Attempt = { kind: 'account', who: email, address }
    await this.#throttle.check(attempt)
    const known = await findCredentials(this.#database.kysely, email)
    const matches = await this.#hasher.matches(password, known?.passwordHash)
    if (known === undefined || !matches) {
      this.#telemetry.signInRefused({ reason: known === undefined ? 'unknown' : 'password' })
      await this.#throttle.failed(attempt)
      throw problems.invalid_credentials()
    }
    // Somebody else may have used up the attempts meanwhile: then this one is none, though it is right.
    await this.#throttle.check(attempt)
    const { account } = known
    if (account.status === 'suspended') {
      this.#telemetry.signInRefused({ reason: 'suspended' })
      throw problems.user_suspended({ userId: account.id })
    }
    const proof = await this.#factors.prove(account.id, code)
    if (proof !== 'proved') {
      this.#telemetry.signInRefused({ reason: 'second_factor' })
      if (proof === 'missing') throw problems.second_factor_required()
      await this.#throttle.failed(attempt)
      throw problems.wrong_code()
    }
    await this.#throttle.succeeded(attempt)
    return this.begin(account, known.passwordHash)
  }

  /**
   * Begins a session of somebody who has proved to be this account as it is: one whose password was changed meanwhile
   * (`provedBy`: its hash then), that was suspended, or whose tokens were revoked, begins none.
   * @throws ProblemError `invalid_credentials`.
   */
  async begin(account: Account, provedBy?: string): Promise<Grant> {
    const sessionId = this.#ids.next<'session'>()
    const refreshToken = this.#secrets.next()
    await this.#database.transaction(async (tx) => {
      if (!(await holdAccount(tx, account, provedBy))) throw problems.invalid_credentials()
      await insertSession(tx, {
        sessionId,
        userId: account.id,
        tokenHash: hashOfSecret(refreshToken),
        lifeDays: this.#refreshTokenDays,
      })
      const { id: actor, tenantId } = account
      await this.#audit.add(tx, { verb: 'session.sign_in', target: sessionId, tenantId, actor, sessionId })
    })
    this.#telemetry.signedIn({ userId: account.id, sessionId })
    return this.#grant(account, sessionId, refreshToken)
  }

  /**
   * Exchanges a refresh token for the next one. A token that was used before means that two hold it: its whole session
   * is revoked, whoever of them is asking (RFC 9700, section 4.14.2).
   * @throws ProblemError `invalid_refresh_token`.
   */
  async refresh(refreshToken: string): Promise<Grant> {
    const tokenHash = hashOfSecret(refreshToken)
    const nextToken = this.#secrets.next()
    const lifeDays = this.#refreshTokenDays
    // The refusal is returned and not thrown, since throwing would roll the revocation back.
    const outcome = await this.#database.transaction(async (tx): Promise<Refreshed> => {
      const used = await useToken(tx, { tokenHash, lifeDays })
      if (used === undefined) {
        const revoked = await revokeReused(tx, tokenHash)
        if (revoked !== undefined) {
          const { sessionId, tenantId } = revoked
          await this.#revocations.revokeSession(tx, sessionId)
          await this.#audit.add(tx, {
            ...{ verb: 'session.revoke_reused', target: sessionId, tenantId, sessionId },
            reason: 'a refresh token was used a second time',
          })
        }
        return { kind: 'refused', revoked: revoked?.sessionId }
      }
      const account = await findAccount(tx, used.userId)
      if (account === undefined || account.status !== 'active') return { kind: 'refused', revoked: undefined }
      await insertToken(tx, { sessionId: used.sessionId, tokenHash: hashOfSecret(nextToken), lifeDays })
      return { kind: 'granted', account, sessionId: used.sessionId }
    })
    if (outcome.kind === 'granted') return this.#grant(outcome.account, outcome.sessionId, nextToken)
    if (outcome.revoked !== undefined) {
      this.#telemetry.sessionRevoked({ sessionId: outcome.revoked, reason: 'reuse' })
    }
    throw problems.invalid_refresh_token()
  }

  /** Ends the session of a refresh token. A token that means nothing ends nothing, and is no error. */
  async logout(refreshToken: string): Promise<void> {
    const sessionId = await this.#database.transaction(async (tx) => {
      const ended = await revokeByToken(tx, hashOfSecret(refreshToken))
      if (ended === undefined) {
        this.#audit.nothingChanged()
        return undefined
      }
      const { sessionId, userId: actor, tenantId } = ended
      await this.#revocations.revokeSession(tx, sessionId)
      await this.#audit.add(tx, { verb: 'session.sign_out', target: sessionId, tenantId, actor, sessionId })
      return sessionId
    })
    if (sessionId !== undefined) this.#telemetry.sessionRevoked({ sessionId, reason: 'logout' })
  }

  /**
   * The sessions of an account that can still be used, the newest first; one more than `limit` when there are more.
   * @throws ProblemError `user_not_found`, `forbidden`; see `assertMaySee`.
   */
  async list(
    caller: Caller,
    userId: UserId,
    page: { beforeId: string | undefined; limit: number },
  ): Promise<SessionRecord[]> {
    assertMaySee(caller, await findAccount(this.#database.kysely, userId), userId)
    return listSessions(this.#database.kysely, { userId, ...page })
  }

  /** Ends one session. @throws ProblemError `session_not_found`, `user_not_found`, `forbidden`. */
  async revoke(caller: Caller, userId: UserId, sessionId: string): Promise<void> {
    const account = await findAccount(this.#database.kysely, userId)
    assertMayManage(caller, account, userId)
    await this.#database.transaction(async (tx) => {
      if (!(await endSession(tx, { sessionId, userId }))) throw problems.session_not_found({ sessionId })
      await this.#revocations.revokeSession(tx, sessionId)
      const { tenantId } = account
      await this.#audit.add(tx, { verb: 'session.revoke', target: sessionId, tenantId, before: { userId } })
    })
    this.#telemetry.sessionRevoked({ sessionId, reason: 'revoked' })
  }

  /** Ends all sessions of an account but the one that asks; returns how many. @throws as `revoke`. */
  async revokeAll(caller: Caller, userId: UserId): Promise<number> {
    const account = await findAccount(this.#database.kysely, userId)
    assertMayManage(caller, account, userId)
    const ended = await this.#database.transaction(async (tx) => {
      const ids = await endSessions(tx, { userId, reason: 'revoked', exceptId: caller.sessionId })
      for (const id of ids) await this.#revocations.revokeSession(tx, id)
      if (ids.length === 0) this.#audit.nothingChanged()
      else {
        const { tenantId } = account
        const before = { sessions: ids }
        await this.#audit.add(tx, { verb: 'session.revoke_all', target: userId, tenantId, before })
      }
      return ids
    })
    for (const sessionId of ended) this.#telemetry.sessionRevoked({ sessionId, reason: 'revoked' })
    return ended.length
  }

  /** Forgets sessions that ended or expired a month ago: until then a replayed token of theirs is known as such. */
  async purge(): Promise<void> {
    await purgeSessions(this.#database.kysely, endedSessionDays)
  }

  async #grant(account: Account, sessionId: string, refreshToken: string): Promise<Grant> {
    const accessToken = await this.#signer.sign(callerOf(account, sessionId), this.#accessTokenSeconds)
    return { accessToken, refreshToken, expiresInSeconds: this.#accessTokenSeconds, account }
  }
}
