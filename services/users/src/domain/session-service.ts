import type { Caller } from '@cloudphone/contracts/access'
import type { Ids } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { findAccount, findCredentials } from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import {
  insertSession,
  insertToken,
  purgeSessions,
  revokeByToken,
  revokeReused,
  useToken,
} from '../db/session-repo.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { TokenSigner } from './access-token.ts'
import type { Account } from './account.ts'
import type { PasswordHasher } from './password-hasher.ts'

/** What a sign-in or a refresh hands out. */
export interface Grant {
  readonly accessToken: string
  readonly refreshToken: string
  readonly expiresInSeconds: number
  readonly account: Account
}

type Refreshed =
  | { readonly kind: 'granted'; readonly account: Account; readonly sessionId: string }
  | { readonly kind: 'refused'; readonly revoked: string | undefined }

const endedSessionDays = 30

/** Sessions: sign in, refresh, sign out. */
export class SessionService {
  readonly #database: Database<UsersSchema>
  readonly #hasher: PasswordHasher
  readonly #signer: TokenSigner
  readonly #secrets: Secrets
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry
  readonly #accessTokenSeconds: number
  readonly #refreshTokenDays: number

  constructor(deps: {
    database: Database<UsersSchema>
    hasher: PasswordHasher
    signer: TokenSigner
    secrets: Secrets
    ids: Ids
    telemetry: UsersTelemetry
    accessTokenSeconds: number
    refreshTokenDays: number
  }) {
    this.#database = deps.database
    this.#hasher = deps.hasher
    this.#signer = deps.signer
    this.#secrets = deps.secrets
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
    this.#accessTokenSeconds = deps.accessTokenSeconds
    this.#refreshTokenDays = deps.refreshTokenDays
  }

  /**
   * Signs in. An unknown e-mail costs the same time and answers the same as a wrong password.
   * @throws ProblemError `invalid_credentials`; `user_suspended` to who knows the password.
   */
  async login({ email, password }: { email: string; password: string }): Promise<Grant> {
    const known = await findCredentials(this.#database.kysely, email)
    const matches = await this.#hasher.matches(password, known?.passwordHash)
    if (known === undefined || !matches) {
      this.#telemetry.signInRefused({ reason: known === undefined ? 'unknown' : 'password' })
      throw problems.invalid_credentials()
    }
    const { account } = known
    if (account.status === 'suspended') {
      this.#telemetry.signInRefused({ reason: 'suspended' })
      throw problems.user_suspended({ userId: account.id })
    }
    const sessionId = this.#ids.next<'session'>()
    const refreshToken = this.#secrets.next()
    await this.#database.transaction((tx) =>
      insertSession(tx, {
        sessionId,
        userId: account.id,
        tokenHash: hashOfSecret(refreshToken),
        lifeDays: this.#refreshTokenDays,
      }),
    )
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
      if (used === undefined) return { kind: 'refused', revoked: await revokeReused(tx, tokenHash) }
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
    const sessionId = await this.#database.transaction((tx) => revokeByToken(tx, hashOfSecret(refreshToken)))
    if (sessionId !== undefined) this.#telemetry.sessionRevoked({ sessionId, reason: 'logout' })
  }

  /** Forgets sessions that ended or expired a month ago: until then a replayed token of theirs is known as such. */
  async purge(): Promise<void> {
    await purgeSessions(this.#database.kysely, endedSessionDays)
  }

  async #grant(account: Account, sessionId: string, refreshToken: string): Promise<Grant> {
    const caller: Caller = {
      userId: account.id,
      tenantId: account.tenantId,
      role: account.role,
      sessionId,
    }
    const accessToken = await this.#signer.sign(caller, this.#accessTokenSeconds)
    return { accessToken, refreshToken, expiresInSeconds: this.#accessTokenSeconds, account }
  }
}
