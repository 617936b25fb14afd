/* Terminology:
 * - account: a user of a tenant: an e-mail, a password, a role
 * - session: what a sign-in begins: a family of refresh tokens, each good once
 */
import { type Caller, may, type Permission, type Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { common } from '@cloudphone/runtime/problem'
import { problems } from '../errors.ts'

/** An account as the domain sees it: without its password's hash. */
export interface Account {
  readonly id: UserId
  readonly tenantId: TenantId
  readonly email: string
  readonly name: string
  readonly role: Role
  readonly status: 'active' | 'suspended'
  /** Of the tenant that runs the platform. */
  readonly isPlatform: boolean
  /** The issue of its access tokens: see `Revocations`. */
  readonly tokenEpoch: number
  readonly createdAt: Date
}

/** The caller that an account is in a session of its own. */
export function callerOf(account: Account, sessionId: string): Caller {
  const { id: userId, tenantId, role, isPlatform, tokenEpoch: epoch } = account
  return { userId, tenantId, role, sessionId, isPlatform, epoch }
}

/**
 * Lets a caller see an account: one's own, or any of the tenant for who may read users.
 * @throws ProblemError `user_not_found` for another tenant's (its existence is nobody's business), `forbidden` within it.
 */
export function assertMaySee(
  caller: Caller,
  account: Account | undefined,
  userId: UserId,
): asserts account is Account {
  assertReaches(caller, account, userId, 'users:read')
}

/** The same for changing what belongs to an account: one's own, or any of the tenant for who manages users. */
export function assertMayManage(
  caller: Caller,
  account: Account | undefined,
  userId: UserId,
): asserts account is Account {
  assertReaches(caller, account, userId, 'users:manage')
}

function assertReaches(
  caller: Caller,
  account: Account | undefined,
  userId: UserId,
  permission: Permission,
): asserts account is Account {
  if (account === undefined || account.tenantId !== caller.tenantId) {
    throw problems.user_not_found({ userId })
  }
  if (account.id !== caller.userId && !may(caller, permission)) throw common.forbidden({ permission })
}
