import { type Caller, may, Permission, type Role } from '@cloudphone/contracts/access'
import { UserCreated } from '@cloudphone/contracts/events/user-events'
import type { Ids, TenantId, UserId } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import {
  ensureTenant,
  findAccount,
  findCredentials,
  insertAccount,
  listAccounts,
} from '../db/account-repo.ts'
import type { UsersSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { UsersTelemetry } from '../telemetry.ts'
import { type Account, assertMaySee } from './account.ts'
import { weaknessOf } from './password.ts'
import type { PasswordHasher } from './password-hasher.ts'

interface NewAccount {
  readonly email: string
  readonly password: string
  readonly name: string
  readonly role: Role
}

/** Accounts: who there is, in which tenant, with which role. Emits `user.created`. */
export class AccountService {
  readonly #database: Database<UsersSchema>
  readonly #outbox: Outbox
  readonly #audit: Audit
  readonly #hasher: PasswordHasher
  readonly #ids: Ids
  readonly #telemetry: UsersTelemetry

  constructor(deps: {
    database: Database<UsersSchema>
    outbox: Outbox
    audit: Audit
    hasher: PasswordHasher
    ids: Ids
    telemetry: UsersTelemetry
  }) {
    this.#database = deps.database
    this.#outbox = deps.outbox
    this.#audit = deps.audit
    this.#hasher = deps.hasher
    this.#ids = deps.ids
    this.#telemetry = deps.telemetry
  }

  /**
   * Makes an account in the caller's tenant.
   * @throws ProblemError `email_taken`, `weak_password`.
   */
  async create(caller: Caller, wanted: NewAccount): Promise<Account> {
    const reason = weaknessOf(wanted.password, wanted)
    if (reason !== undefined) throw problems.weak_password({ reason })
    const account = await this.#insert(caller.tenantId, wanted)
    if (account === undefined) throw problems.email_taken({ email: wanted.email })
    return account
  }

  /**
   * Makes the first administrator in the tenant `default`, once. An account that has the e-mail already stays as it is,
   * password and role included: a changed setting is no way into somebody's account.
   */
  async ensureAdmin(admin: { email: string; password: string }): Promise<void> {
    const known = await findCredentials(this.#database.kysely, admin.email)
    if (known !== undefined) {
      this.#telemetry.adminEnsured({ userId: known.account.id, made: 'before' })
      return
    }
    const tenantId = await ensureTenant(this.#database.kysely, {
      id: this.#ids.next<'tenant'>(),
      slug: 'default',
      name: 'Default',
      is_platform: true,
    })
    const made = await this.#insert(tenantId, { ...admin, name: 'Administrator', role: 'admin' })
    // Undefined: another instance that started at the same moment was first.
    if (made !== undefined) this.#telemetry.adminEnsured({ userId: made.id, made: 'now' })
  }

  /** @throws ProblemError `user_not_found`, `forbidden`; see `assertMaySee`. */
  async get(caller: Caller, userId: UserId): Promise<Account> {
    const account = await findAccount(this.#database.kysely, userId)
    assertMaySee(caller, account, userId)
    return account
  }

  /** The caller's own account, and what its role permits. */
  async me(caller: Caller): Promise<{ account: Account; permissions: Permission[] }> {
    const account = await this.get(caller, caller.userId)
    return { account, permissions: Permission.options.filter((permission) => may(caller, permission)) }
  }

  /** The accounts of the caller's tenant, the newest first; one more than `limit` when there are more. */
  list(caller: Caller, page: { beforeId: string | undefined; limit: number }): Promise<Account[]> {
    return listAccounts(this.#database.kysely, { tenantId: caller.tenantId, ...page })
  }

  /** Makes an account in a transaction of the caller's; undefined when the e-mail is taken. */
  async insert(
    tx: Tx<UsersSchema>,
    wanted: Omit<NewAccount, 'password'> & {
      readonly tenantId: TenantId
      readonly passwordHash: string
      readonly emailVerified?: boolean
    },
  ): Promise<Account | undefined> {
    const { tenantId, email, role } = wanted
    const id = this.#ids.next<'user'>()
    const made = await insertAccount(tx, { ...wanted, id })
    if (made === undefined) return undefined
    await this.#outbox.add(tx, UserCreated, {
      aggregateId: id,
      aggregateVersion: made.version,
      payload: { userId: id, tenantId, email, role },
    })
    const { name, status } = made.account
    const after = { email, name, role, status }
    // Who proves an e-mail makes the account himself: no caller is there to have done it.
    const actor = wanted.emailVerified === true ? id : undefined
    await this.#audit.add(tx, { verb: 'user.create', target: id, tenantId, after, actor })
    afterCommit(tx, () => this.#telemetry.userCreated({ userId: id, tenantId, role }))
    return made.account
  }

  /** Undefined when the e-mail is taken. The password is hashed before the transaction begins: it takes 20 ms of CPU. */
  async #insert(tenantId: TenantId, { password, ...wanted }: NewAccount): Promise<Account | undefined> {
    const passwordHash = await this.#hasher.hash(password)
    return this.#database.transaction((tx) => this.insert(tx, { ...wanted, tenantId, passwordHash }))
  }
}
