import type { Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { UsersSchema } from './schema.ts'

interface Member {
  readonly userId: UserId
  readonly tenantId: TenantId
}

/**
 * Makes those who change the administrators of a tenant come one after the other: of two who each take away the last
 * but one, the second must see what the first has done.
 */
export async function lockAdmins(tx: Kysely<UsersSchema>, tenantId: TenantId): Promise<void> {
  await sql`select from tenants where id = ${tenantId} for no key update`.execute(tx)
}

/** True for an account whose loss leaves its tenant with another active administrator. */
const dispensable = sql<boolean>`(users.role <> 'admin' or users.status <> 'active' or exists (
  select from users as other where other.tenant_id = users.tenant_id and other.id <> users.id
    and other.role = 'admin' and other.status = 'active'))`

/** Changes the name; false for an account that is not there. */
export async function rename(
  tx: Kysely<UsersSchema>,
  { userId, tenantId }: Member,
  name: string,
): Promise<boolean> {
  const renamed = await sql`
    update users set name = ${name}, updated_at = now() -- audit
    where id = ${userId} and tenant_id = ${tenantId} and status <> 'deleted'`.execute(tx)
  return renamed.numAffectedRows === 1n
}

/** Changes the role; false when it is that already, or the tenant would be left without an administrator. */
export async function changeRole(
  tx: Kysely<UsersSchema>,
  { userId, tenantId }: Member,
  role: Role,
): Promise<boolean> {
  const changed = await sql`
    update users set role = ${role}, updated_at = now() -- audit
    where id = ${userId} and tenant_id = ${tenantId} and status <> 'deleted' and role <> ${role}
      and (${role} = 'admin' or ${dispensable})`.execute(tx)
  return changed.numAffectedRows === 1n
}

/** Suspends an active account that its tenant can do without; the version of the event, or undefined. */
export async function suspend(
  tx: Kysely<UsersSchema>,
  { userId, tenantId }: Member,
  reason: string,
): Promise<number | undefined> {
  const suspended = await sql<{ version: number }>`
    update users set status = 'suspended', suspend_reason = ${reason}, version = version + 1,
                     updated_at = now() -- audit
    where id = ${userId} and tenant_id = ${tenantId} and status = 'active' and ${dispensable}
    returning version`.execute(tx)
  return suspended.rows[0]?.version
}

/** Lifts a suspension; the version of the event, or undefined when there is none. */
export async function activate(
  tx: Kysely<UsersSchema>,
  { userId, tenantId }: Member,
): Promise<number | undefined> {
  const activated = await sql<{ version: number }>`
    update users set status = 'active', suspend_reason = null, version = version + 1,
                     updated_at = now() -- audit
    where id = ${userId} and tenant_id = ${tenantId} and status = 'suspended'
    returning version`.execute(tx)
  return activated.rows[0]?.version
}

/** Forgets who an account was, with all that lets one in; the version of the event, or undefined. */
export async function anonymise(
  tx: Kysely<UsersSchema>,
  { userId, tenantId }: Member,
): Promise<number | undefined> {
  const gone = await sql<{ version: number }>`
    update users
    set status = 'deleted', suspend_reason = null, email = 'deleted-' || id || '@deleted.invalid',
        name = 'deleted', password_hash = '!', email_verified_at = null, version = version + 1,
        updated_at = now() -- audit
    where id = ${userId} and tenant_id = ${tenantId} and status <> 'deleted' and ${dispensable}
    returning version`.execute(tx)
  const version = gone.rows[0]?.version
  if (version === undefined) return undefined
  await sql`delete from api_keys where user_id = ${userId}`.execute(tx)
  await sql`delete from second_factors where user_id = ${userId}`.execute(tx)
  await sql`delete from identities where user_id = ${userId}`.execute(tx)
  await sql`delete from one_time_tokens where user_id = ${userId}`.execute(tx)
  return version
}

/** Sets another password; false for an account that is not there. */
export async function setPassword(
  tx: Kysely<UsersSchema>,
  userId: UserId,
  passwordHash: string,
): Promise<boolean> {
  const set = await sql`
    update users set password_hash = ${passwordHash}, updated_at = now() -- audit
    where id = ${userId} and status <> 'deleted'`.execute(tx)
  return set.numAffectedRows === 1n
}

/** Notes that the account's mailbox is its person's, if it still is the one that was proved. */
export async function verifyEmail(
  tx: Kysely<UsersSchema>,
  { userId, email }: { userId: UserId; email: string },
): Promise<boolean> {
  const verified = await sql`
    update users set email_verified_at = coalesce(email_verified_at, app_now()), updated_at = now() -- audit
    where id = ${userId} and email = ${email} and status <> 'deleted'`.execute(tx)
  return verified.numAffectedRows === 1n
}
