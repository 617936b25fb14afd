import type { Role } from '@cloudphone/contracts/access'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, type Selectable, sql } from 'kysely'
import type { Account } from '../domain/account.ts'
import { ensureTenantBook } from './quota-repo.ts'
import type { UsersSchema } from './schema.ts'

type UserRow = Selectable<UsersSchema['users']>

const columns = ['id', 'tenant_id', 'email', 'name', 'role', 'token_epoch', 'created_at'] as const
const shown = [
  ...columns,
  sql<boolean>`(select is_platform from tenants where tenants.id = users.tenant_id)`.as('is_platform'),
  // Whoever belongs to a suspended tenant is suspended.
  sql<Account['status']>`(select case when tenants.status = 'active' then users.status else 'suspended' end
    from tenants where tenants.id = users.tenant_id)`.as('status'),
] as const

type ShownRow = Pick<UserRow, (typeof columns)[number]> & {
  is_platform: boolean
  status: Account['status']
}

function accountOf(row: ShownRow): Account {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    email: row.email,
    name: row.name,
    role: row.role,
    status: row.status,
    isPlatform: row.is_platform,
    tokenEpoch: row.token_epoch,
    createdAt: row.created_at,
  }
}

/** Makes a tenant unless its slug is taken; returns the id of the one that is there afterwards. */
export async function ensureTenant(
  db: Kysely<UsersSchema>,
  tenant: { id: TenantId; slug: string; name: string; is_platform?: boolean },
): Promise<TenantId> {
  await db
    .insertInto('tenants')
    .values(tenant)
    // By its slug, or as a second tenant that runs the platform: two instances that start together both try.
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  const kept = await db
    .selectFrom('tenants')
    .select('id')
    .where('slug', '=', tenant.slug)
    .executeTakeFirstOrThrow()
  return kept.id
}

/** Inserts an account at version 1, and the books of its quota; undefined when the e-mail is taken. */
export async function insertAccount(
  tx: Kysely<UsersSchema>,
  user: {
    id: UserId
    tenantId: TenantId
    email: string
    name: string
    role: Role
    passwordHash: string
    /** True for who has shown that the mailbox is theirs. */
    emailVerified?: boolean
  },
): Promise<{ account: Account; version: number } | undefined> {
  const row = await tx
    .insertInto('users')
    .values({
      id: user.id,
      tenant_id: user.tenantId,
      email: user.email,
      name: user.name,
      role: user.role,
      password_hash: user.passwordHash,
      email_verified_at: user.emailVerified ? sql<Date>`app_now()` : null,
    })
    .onConflict((conflict) => conflict.constraint('users_email_key').doNothing())
    .returning([...shown, 'version'])
    .executeTakeFirst()
  if (row === undefined) return undefined
  await tx.insertInto('quotas').values({ user_id: user.id }).execute()
  await ensureTenantBook(tx, user.tenantId)
  return { account: accountOf(row), version: row.version }
}

/** An account by its id; undefined for an unknown or deleted one. */
export async function findAccount(db: Kysely<UsersSchema>, id: UserId): Promise<Account | undefined> {
  const row = await db
    .selectFrom('users')
    .select(shown)
    .where('id', '=', id)
    .where('users.status', '<>', 'deleted')
    .executeTakeFirst()
  return row && accountOf(row)
}

/** An account with what its password is checked against. */
export async function findCredentials(
  db: Kysely<UsersSchema>,
  email: string,
): Promise<{ account: Account; passwordHash: string } | undefined> {
  const row = await db
    .selectFrom('users')
    .select([...shown, 'password_hash'])
    .where('email', '=', email)
    .executeTakeFirst()
  return row && { account: accountOf(row), passwordHash: row.password_hash }
}

/** A tenant's accounts, the newest first, from below `beforeId` on; `limit + 1` of them when there are more. */
export async function listAccounts(
  db: Kysely<UsersSchema>,
  query: { tenantId: TenantId; beforeId: string | undefined; limit: number },
): Promise<Account[]> {
  let select = db
    .selectFrom('users')
    .select(shown)
    .where('tenant_id', '=', query.tenantId)
    .where('users.status', '<>', 'deleted')
    .orderBy('id', 'desc')
    .limit(query.limit + 1)
  if (query.beforeId !== undefined) select = select.where(sql<boolean>`id < ${query.beforeId}::uuid`)
  return (await select.execute()).map(accountOf)
}

/** What the password of an account is checked against; undefined for an unknown or deleted one. */
export async function findPasswordHash(db: Kysely<UsersSchema>, id: UserId): Promise<string | undefined> {
  const row = await db
    .selectFrom('users')
    .select('password_hash')
    .where('id', '=', id)
    .where('status', '<>', 'deleted')
    .executeTakeFirst()
  return row?.password_hash
}
