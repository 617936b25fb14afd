/* Terminology:
 * - second factor: an authenticator that makes a code of six digits each 30 s (TOTP, RFC 6238)
 * - recovery code: what lets one in instead when the authenticator is lost; ten of them, each good once
 */
import type { Caller } from '@cloudphone/contracts/access'
import type { UserId } from '@cloudphone/contracts/id'
import type { Database, Tx } from '@cloudphone/db/database'
import type { Clock } from '@cloudphone/observe/clock'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { Secret, TOTP } from 'otpauth'
import { findAccount, findPasswordHash } from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import {
  confirmFactor,
  countRecoveryCodes,
  deleteFactor,
  type FactorRecord,
  findFactor,
  putFactor,
  replaceRecoveryCodes,
  useRecoveryCode,
  useStep,
} from '../db/second-factor-repo.ts'
import { problems } from '../errors.ts'
import { hashOfSecret, type Secrets } from '../secrets.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import type { Vault } from '../vault.ts'
import { assertMayManage } from './account.ts'
import type { PasswordHasher } from './password-hasher.ts'
import type { Revocations } from './revocations.ts'
import type { Attempt, SignInThrottle } from './sign-in-throttle.ts'

const periodSeconds = 30
const recoveryCodeCount = 10

/** Second factors: enrolled, confirmed, asked for, lost. */
export class SecondFactorService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #clock: Clock
  readonly #hasher: PasswordHasher
  readonly #throttle: SignInThrottle
  readonly #revocations: Revocations
  readonly #vault: Vault
  readonly #secrets: Secrets
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    clock: Clock
    hasher: PasswordHasher
    throttle: SignInThrottle
    revocations: Revocations
    vault: Vault
    secrets: Secrets
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#clock = deps.clock
    this.#hasher = deps.hasher
    this.#throttle = deps.throttle
    this.#revocations = deps.revocations
    this.#vault = deps.vault
    this.#secrets = deps.secrets
    this.#telemetry = deps.telemetry
  }

  /** Whether the caller's account has one. */
  async state({ userId }: Caller): Promise<{ state: 'off' | 'enrolled' | 'on'; recoveryCodesLeft: number }> {
    const factor = await findFactor(this.#database.kysely, userId)
    if (factor === undefined) return { state: 'off', recoveryCodesLeft: 0 }
    return {
      state: factor.confirmed ? 'on' : 'enrolled',
      recoveryCodesLeft: await countRecoveryCodes(this.#database.kysely, userId),
    }
  }

  /**
   * Makes a secret, which counts for nothing until it is confirmed.
   * @throws ProblemError `wrong_password`, `second_factor_on`, `too_many_attempts`.
   */
  async enrol(caller: Caller, password: string): Promise<{ secret: string; otpauthUrl: string }> {
    const account = await findAccount(this.#database.kysely, caller.userId)
    if (account === undefined) throw problems.user_not_found({ userId: caller.userId })
    const attempt = attemptOf(caller.userId)
    await this.#throttle.check(attempt)
    const hash = await findPasswordHash(this.#database.kysely, caller.userId)
    if (!(await this.#hasher.matches(password, hash))) {
      await this.#throttle.failed(attempt)
      throw problems.wrong_password()
    }
    await this.#throttle.check(attempt)
    const bytes = this.#secrets.bytes(20)
    const sealed = this.#vault.seal(bytes, account.id)
    const put = await this.#database.transaction(async (tx) => {
      if (!(await putFactor(tx, account.id, sealed))) return false
      await this.#record(tx, 'second_factor.enrol', caller)
      return true
    })
    if (!put) throw problems.second_factor_on()
    const totp = totpOf(bytes, account.email)
    return { secret: totp.secret.base32, otpauthUrl: totp.toString() }
  }

  /**
   * Switches it on by its first code; returns the recovery codes.
   * @throws ProblemError `second_factor_off`, `second_factor_on`, `wrong_code`, `too_many_attempts`.
   */
  async confirm(caller: Caller, code: string): Promise<string[]> {
    const { userId } = caller
    const attempt = attemptOf(userId)
    await this.#throttle.check(attempt)
    const factor = await findFactor(this.#database.kysely, userId)
    if (factor === undefined) throw problems.second_factor_off()
    if (factor.confirmed) throw problems.second_factor_on()
    const step = this.#stepOf(factor, userId, code)
    if (step === undefined) return this.#wrongCode(attempt)
    await this.#throttle.check(attempt)
    const codes = newRecoveryCodes(this.#secrets)
    await this.#database.transaction(async (tx) => {
      if (!(await confirmFactor(tx, { userId, secret: factor.secret, step })))
        throw problems.second_factor_on()
      await replaceRecoveryCodes(tx, userId, codes.map(hashOfCode))
      await this.#record(tx, 'second_factor.confirm', caller)
    })
    this.#telemetry.userChanged({ userId, by: userId, what: 'second_factor_on' })
    return codes
  }

  /** Replaces the recovery codes. @throws ProblemError `second_factor_off`, `wrong_code`, `too_many_attempts`. */
  async renewRecoveryCodes(caller: Caller, code: string): Promise<string[]> {
    const { userId } = caller
    const codes = newRecoveryCodes(this.#secrets)
    await this.#withCode(userId, code, async (tx) => {
      await replaceRecoveryCodes(tx, userId, codes.map(hashOfCode))
      await this.#record(tx, 'second_factor.renew_codes', caller)
    })
    this.#telemetry.userChanged({ userId, by: userId, what: 'recovery_codes' })
    return codes
  }

  /** Switches one's own off. @throws ProblemError `second_factor_off`, `wrong_code`, `too_many_attempts`. */
  async disable(caller: Caller, code: string): Promise<void> {
    const { userId } = caller
    await this.#withCode(userId, code, async (tx) => {
      await deleteFactor(tx, userId)
      await this.#record(tx, 'second_factor.disable', caller)
    })
    this.#telemetry.userChanged({ userId, by: userId, what: 'second_factor_off' })
  }

  /**
   * Switches that of another off, whose person has lost it; ends the account's sessions.
   * @throws ProblemError `user_not_found`.
   */
  async remove(caller: Caller, userId: UserId): Promise<void> {
    assertMayManage(caller, await findAccount(this.#database.kysely, userId), userId)
    const removed = await this.#database.transaction(async (tx) => {
      if (!(await deleteFactor(tx, userId))) {
        this.#audit.nothingChanged()
        return false
      }
      await this.#record(tx, 'second_factor.remove', { userId, tenantId: caller.tenantId })
      await this.#revocations.revokeUser(tx, userId)
      return true
    })
    if (removed) this.#telemetry.userChanged({ userId, by: caller.userId, what: 'second_factor_off' })
  }

  /** Whether a sign-in may go on: with the code used up, when the account has a second factor. */
  async prove(userId: UserId, code: string | undefined): Promise<'proved' | 'missing' | 'wrong'> {
    const factor = await findFactor(this.#database.kysely, userId)
    if (!factor?.confirmed) return 'proved'
    if (code === undefined) return 'missing'
    const used = await this.#database.transaction((tx) => this.#use(tx, { userId, factor, code }))
    return used ? 'proved' : 'wrong'
  }

  async #withCode(userId: UserId, code: string, work: (tx: Tx<UsersSchema>) => Promise<void>): Promise<void> {
    const attempt = attemptOf(userId)
    await this.#throttle.check(attempt)
    const factor = await findFactor(this.#database.kysely, userId)
    if (!factor?.confirmed) throw problems.second_factor_off()
    const done = await this.#database.transaction(async (tx) => {
      if (!(await this.#use(tx, { userId, factor, code }))) return false
      await work(tx)
      return true
    })
    if (!done) await this.#wrongCode(attempt)
    await this.#throttle.succeeded(attempt)
  }

  async #record(
    tx: Tx<UsersSchema>,
    verb: `second_factor.${string}`,
    { userId: target, tenantId }: Pick<Caller, 'userId' | 'tenantId'>,
  ): Promise<void> {
    await this.#audit.add(tx, { verb, target, tenantId })
  }

  async #use(
    tx: Tx<UsersSchema>,
    { userId, factor, code }: { userId: UserId; factor: FactorRecord; code: string },
  ): Promise<boolean> {
    if (!/^\d{6}$/.test(code)) return useRecoveryCode(tx, userId, hashOfCode(code))
    const step = this.#stepOf(factor, userId, code)
    return step !== undefined && useStep(tx, { userId, secret: factor.secret, step })
  }

  /** The step that a code is for: of now, or of the one before or after, for a clock that is not quite right. */
  #stepOf(factor: FactorRecord, userId: UserId, code: string): number | undefined {
    const timestamp = this.#clock.now().getTime()
    const totp = totpOf(this.#vault.open(factor.secret, userId), '')
    const delta = totp.validate({ token: code, timestamp, window: 1 })
    return delta === null ? undefined : Math.floor(timestamp / 1000 / periodSeconds) + delta
  }

  async #wrongCode(attempt: Attempt): Promise<never> {
    await this.#throttle.failed(attempt)
    throw problems.wrong_code()
  }
}

const attemptOf = (userId: UserId): Attempt => ({ kind: 'code', who: userId, address: undefined })

function totpOf(secret: Uint8Array, label: string): TOTP {
  const { buffer } = Uint8Array.from(secret)
  return new TOTP({
    ...{ issuer: 'Cloudphone', label, algorithm: 'SHA1', digits: 6, period: periodSeconds },
    secret: new Secret({ buffer }),
  })
}

/** Ten codes of 80 random bits each: too many to guess, so that a plain hash keeps them. */
function newRecoveryCodes(secrets: Secrets): string[] {
  return Array.from({ length: recoveryCodeCount }, () => {
    const code = new Secret({ buffer: Uint8Array.from(secrets.bytes(10)).buffer }).base32.toLowerCase()
    return `${code.slice(0, 8)}-${code.slice(8)}`
  })
}

/** As people type it: with or without the dash, in any case. */
function hashOfCode(code: string): Buffer {
  return hashOfSecret(code.toLowerCase().replaceAll(/[\s-]/g, ''))
}
