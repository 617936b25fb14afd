import { type Caller, may, type Role } from '@cloudphone/contracts/access'
import { UserActivated, UserDeleted, UserSuspended } from '@cloudphone/contracts/events/user-events'
import type { UserId } from '@cloudphone/contracts/id'
import type { Database, Tx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { common } from '@cloudphone/runtime/problem'
import { findAccount } from '../db/account-repo.ts'
import { activate, anonymise, changeRole, lockAdmins, rename, suspend } from '../db/lifecycle-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { type Account, assertMayManage } from './account.ts'
import type { Revocations } from './revocations.ts'
import type { SignInThrottle } from './sign-in-throttle.ts'

/**
 * What becomes of accounts after they were made. What an account may do no more is refused everywhere within 2 s. A
 * tenant always keeps an active administrator. Emits `user.suspended`, `user.activated`, `user.deleted`.
 */
export class LifecycleService {
  readonly #database: Database<UsersSchema>
  readonly #audit: Audit
  readonly #outbox: Outbox
  readonly #revocations: Revocations
  readonly #throttle: SignInThrottle
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    audit: Audit
    outbox: Outbox
    revocations: Revocations
    throttle: SignInThrottle
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#audit = deps.audit
    this.#outbox = deps.outbox
    this.#revocations = deps.revocations
    this.#throttle = deps.throttle
    this.#telemetry = deps.telemetry
  }

  /**
   * Changes name or role: the name also by its owner, the role only by who manages users.
   * @throws ProblemError `user_not_found`, `forbidden`, `last_admin`.
   */
  async update(
    caller: Caller,
    userId: UserId,
    { name, role }: { name?: string | undefined; role?: Role | undefined },
  ): Promise<Account> {
    if (role !== undefined && !may(caller, 'users:manage')) {
      throw common.forbidden({ permission: 'users:manage' })
    }
    const { account, done } = await this.#change(caller, userId, async (tx, known) => {
      const done: ('name' | 'role')[] = []
      if (role !== undefined && role !== known.role) {
        await this.#changeRole(tx, known, role)
        done.push('role')
      }
      if (name !== undefined && name !== known.name && (await rename(tx, memberOf(known), name))) {
        done.push('name')
      }
      if (done.length === 0) this.#audit.nothingChanged()
      else await this.#record(tx, 'user.update', known, { name: known.name, role: known.role })
      return done
    })
    for (const what of done) this.#telemetry.userChanged({ userId, by: caller.userId, what })
    return account
  }

  /** Locks an account out; again is no error. @throws ProblemError `user_not_found`, `last_admin`. */
  async suspend(caller: Caller, userId: UserId, reason: string): Promise<Account> {
    const { account, done } = await this.#change(caller, userId, async (tx, known) => {
      await lockAdmins(tx, known.tenantId)
      const version = await suspend(tx, memberOf(known), reason)
      if (version === undefined) return this.#refuseLastAdmin(tx, known)
      await this.#record(tx, 'user.suspend', known, { status: known.status }, reason)
      const payload = { userId, tenantId: known.tenantId, reason }
      await this.#outbox.add(tx, UserSuspended, { aggregateId: userId, aggregateVersion: version, payload })
      await this.#revocations.revokeUser(tx, userId)
      return true
    })
    if (done) this.#telemetry.userChanged({ userId, by: caller.userId, what: 'suspended' })
    return account
  }

  /** Lifts a suspension; of an account without one nothing is changed. @throws ProblemError `user_not_found`. */
  async activate(caller: Caller, userId: UserId): Promise<Account> {
    const { account, done } = await this.#change(caller, userId, async (tx, known) => {
      const version = await activate(tx, memberOf(known))
      if (version === undefined) {
        this.#audit.nothingChanged()
        return false
      }
      await this.#record(tx, 'user.activate', known, { status: known.status })
      const payload = { userId, tenantId: known.tenantId }
      await this.#outbox.add(tx, UserActivated, { aggregateId: userId, aggregateVersion: version, payload })
      return true
    })
    if (done) this.#telemetry.userChanged({ userId, by: caller.userId, what: 'activated' })
    return account
  }

  /** Forgets who an account was. Its id stays for what refers to it. @throws ProblemError `user_not_found`, `last_admin`. */
  async delete(caller: Caller, userId: UserId): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const known = await findAccount(tx, userId)
      assertMayManage(caller, known, userId)
      await lockAdmins(tx, known.tenantId)
      const version = await anonymise(tx, memberOf(known))
      if (version === undefined) {
        if ((await findAccount(tx, userId)) === undefined) throw problems.user_not_found({ userId })
        throw problems.last_admin({ userId })
      }
      await this.#revocations.revokeUser(tx, userId)
      const { tenantId, email, name, role } = known
      const before = { email, name, role }
      await this.#audit.add(tx, { verb: 'user.delete', target: userId, tenantId, before })
      const payload = { userId, tenantId: known.tenantId }
      await this.#outbox.add(tx, UserDeleted, { aggregateId: userId, aggregateVersion: version, payload })
    })
    this.#telemetry.userChanged({ userId, by: caller.userId, what: 'deleted' })
  }

  /** Forgets the wrong attempts to sign in to an account. @throws ProblemError `user_not_found`. */
  async unlock(caller: Caller, userId: UserId): Promise<void> {
    const account = await findAccount(this.#database.kysely, userId)
    assertMayManage(caller, account, userId)
    await this.#throttle.succeeded({ kind: 'account', who: account.email, address: undefined })
    await this.#throttle.succeeded({ kind: 'code', who: userId, address: undefined })
    await this.#database.transaction((tx) =>
      this.#audit.add(tx, { verb: 'user.unlock', target: userId, tenantId: account.tenantId }),
    )
    this.#telemetry.userChanged({ userId, by: caller.userId, what: 'unlocked' })
  }

  /** Does something with an account that the caller may manage; returns how the account is afterwards. */
  async #change<Done>(
    caller: Caller,
    userId: UserId,
    work: (tx: Tx<UsersSchema>, account: Account) => Promise<Done>,
  ): Promise<{ account: Account; done: Done }> {
    return this.#database.transaction(async (tx) => {
      const known = await findAccount(tx, userId)
      assertMayManage(caller, known, userId)
      const done = await work(tx, known)
      const account = await findAccount(tx, userId)
      if (account === undefined) throw problems.user_not_found({ userId })
      return { account, done }
    })
  }

  async #changeRole(tx: Tx<UsersSchema>, known: Account, role: Role): Promise<void> {
    await lockAdmins(tx, known.tenantId)
    if (await changeRole(tx, memberOf(known), role)) {
      await this.#revocations.renewTokens(tx, known.id)
      return
    }
    const account = await findAccount(tx, known.id)
    if (account !== undefined && account.role !== role) throw problems.last_admin({ userId: known.id })
  }

  async #refuseLastAdmin(tx: Tx<UsersSchema>, known: Account): Promise<false> {
    const account = await findAccount(tx, known.id)
    if (account?.status === 'active') throw problems.last_admin({ userId: known.id })
    this.#audit.nothingChanged()
    return false
  }

  /** Puts on record what of an account was changed: `before`, and the same fields after it. */
  async #record(
    tx: Tx<UsersSchema>,
    verb: 'user.update' | 'user.suspend' | 'user.activate',
    { id: target, tenantId }: Account,
    before: Partial<Account>,
    reason?: string,
  ): Promise<void> {
    const account = await findAccount(tx, target)
    const fields = Object.keys(before) as (keyof Account)[]
    const after = account && Object.fromEntries(fields.map((field) => [field, account[field]]))
    await this.#audit.add(tx, { verb, target, tenantId, before, after, reason })
  }
}

const memberOf = ({ id: userId, tenantId }: Account) => ({ userId, tenantId })
