/* The books of users and tenants. Whatever changes a counter holds the row's lock, and all take their locks in one order,
 * so that nobody meets anybody in a deadlock: rows of quotas by user id, rows of tenant_quotas by tenant id, reservations by
 * their id, users. The tenant's row comes second because it is the one that many wait for. */
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, type Selectable, sql } from 'kysely'
import type {
  Book,
  LockedBook,
  LockedUserBook,
  OwnLimits,
  QuotaDefaults,
  QuotaLimits,
  TenantQuota,
  UserQuota,
} from '../domain/quota.ts'
import type { UsersSchema } from './schema.ts'

type BookRow = Omit<Selectable<UsersSchema['quotas']>, 'user_id' | 'updated_at'>

function bookOf(row: BookRow, defaults: QuotaLimits): Book {
  return {
    limits: {
      maxDevices: row.max_devices ?? defaults.maxDevices,
      maxCpu: row.max_cpu ?? defaults.maxCpu,
      maxMemory: row.max_memory ?? defaults.maxMemory,
      maxStorage: row.max_storage ?? defaults.maxStorage,
      maxSessions: row.max_sessions ?? defaults.maxSessions,
    },
    used: {
      devices: row.devices,
      cpu: row.cpu,
      memory: row.memory,
      storage: row.storage,
      sessions: row.sessions,
    },
  }
}

/** Makes the row of a tenant unless there is one; what is not there holds nothing and has the default limits. */
export async function ensureTenantBook(db: Kysely<UsersSchema>, tenantId: TenantId): Promise<void> {
  await db
    .insertInto('tenant_quotas')
    .values({ tenant_id: tenantId })
    .onConflict((conflict) => conflict.column('tenant_id').doNothing())
    .execute()
}

/** A user's quota; undefined for an unknown user. */
export async function findUserQuota(
  db: Kysely<UsersSchema>,
  userId: UserId,
  defaults: QuotaDefaults,
): Promise<(UserQuota & { tenantId: TenantId }) | undefined> {
  const row = await db
    .selectFrom('quotas')
    .innerJoin('users', 'users.id', 'quotas.user_id')
    .selectAll('quotas')
    .select('users.tenant_id')
    .where('user_id', '=', userId)
    .executeTakeFirst()
  return row && { userId, tenantId: row.tenant_id, ...bookOf(row, defaults.user) }
}

/** A tenant's quota; undefined for an unknown tenant. */
export async function findTenantQuota(
  db: Kysely<UsersSchema>,
  tenantId: TenantId,
  defaults: QuotaDefaults,
): Promise<TenantQuota | undefined> {
  const tenant = await db.selectFrom('tenants').select('id').where('id', '=', tenantId).executeTakeFirst()
  if (tenant === undefined) return undefined
  const row = await db
    .selectFrom('tenant_quotas')
    .selectAll()
    .where('tenant_id', '=', tenantId)
    .executeTakeFirst()
  const nothing = { devices: 0, cpu: 0, memory: 0, storage: 0, sessions: 0 }
  return { tenantId, ...(row ? bookOf(row, defaults.tenant) : { limits: defaults.tenant, used: nothing }) }
}

/** Locks the rows of these users and then of their tenants, made if need be, until the transaction ends, and reads them. */
export async function lockBooks(
  tx: Kysely<UsersSchema>,
  userIds: readonly UserId[],
  defaults: QuotaDefaults,
): Promise<{ users: Map<UserId, LockedUserBook>; tenants: Map<TenantId, LockedBook> }> {
  const users = await sql<BookRow & { user_id: UserId; tenant_id: TenantId; status: string }>`
    select quotas.*, users.tenant_id,
           case when users.status = 'active' and tenants.status <> 'active' then 'suspended'
                else users.status end as status
    from quotas join users on users.id = quotas.user_id join tenants on tenants.id = users.tenant_id
    where quotas.user_id = any(${userIds}::uuid[]) order by quotas.user_id for update of quotas`.execute(tx)
  const tenantIds = [...new Set(users.rows.map((row) => row.tenant_id))].toSorted()
  let tenants = await lockTenants(tx, tenantIds, defaults)
  if (tenants.size < tenantIds.length) {
    for (const tenantId of tenantIds) await ensureTenantBook(tx, tenantId)
    tenants = await lockTenants(tx, tenantIds, defaults)
  }
  return {
    tenants,
    users: new Map(
      users.rows.map((row) => [
        row.user_id,
        { tenantId: row.tenant_id, status: row.status, told: row.told, ...bookOf(row, defaults.user) },
      ]),
    ),
  }
}

/** The second half of `lockBooks`. */
export async function lockTenants(
  tx: Kysely<UsersSchema>,
  tenantIds: readonly TenantId[],
  defaults: QuotaDefaults,
): Promise<Map<TenantId, LockedBook>> {
  const tenants = await sql<BookRow & { tenant_id: TenantId }>`
    select * from tenant_quotas where tenant_id = any(${tenantIds}::uuid[]) order by tenant_id for update`.execute(
    tx,
  )
  return new Map(
    tenants.rows.map((row) => [row.tenant_id, { told: row.told, ...bookOf(row, defaults.tenant) }]),
  )
}

const limitColumns = (limits: OwnLimits) => ({
  max_devices: limits.maxDevices,
  max_cpu: limits.maxCpu,
  max_memory: limits.maxMemory,
  max_storage: limits.maxStorage,
  max_sessions: limits.maxSessions,
  told: [],
  updated_at: sql<Date>`now() /* audit */`,
})

/** Sets a user's own limits. They may lie below what is used: then nothing more is reserved until enough is released. */
export async function updateLimits(
  tx: Kysely<UsersSchema>,
  userId: UserId,
  limits: OwnLimits,
): Promise<void> {
  await tx.updateTable('quotas').set(limitColumns(limits)).where('user_id', '=', userId).execute()
}

const ownLimits = [
  ...(['max_devices as maxDevices', 'max_cpu as maxCpu', 'max_memory as maxMemory'] as const),
  ...(['max_storage as maxStorage', 'max_sessions as maxSessions'] as const),
] as const

/** A user's own limits, null for a default; the row is locked. */
export async function lockLimits(tx: Kysely<UsersSchema>, userId: UserId): Promise<OwnLimits | undefined> {
  const rows = tx.selectFrom('quotas').select(ownLimits).where('user_id', '=', userId)
  return await rows.forUpdate().executeTakeFirst()
}

/** The same of a tenant. */
export async function lockTenantLimits(
  tx: Kysely<UsersSchema>,
  tenantId: TenantId,
): Promise<OwnLimits | undefined> {
  const rows = tx.selectFrom('tenant_quotas').select(ownLimits).where('tenant_id', '=', tenantId)
  return await rows.forUpdate().executeTakeFirst()
}

/** As `updateLimits`, of a tenant; answers the version of the event that tells of it. */
export async function updateTenantLimits(
  tx: Kysely<UsersSchema>,
  tenantId: TenantId,
  limits: OwnLimits,
): Promise<number> {
  const row = await tx
    .updateTable('tenant_quotas')
    .set({ ...limitColumns(limits), version: sql<number>`version + 1` })
    .where('tenant_id', '=', tenantId)
    .returning('version')
    .executeTakeFirstOrThrow()
  return row.version
}

/** The version of the next event about a user. The last lock of a transaction: see the head of this file. */
export async function nextUserVersion(tx: Kysely<UsersSchema>, userId: UserId): Promise<number> {
  const row = await tx
    .updateTable('users')
    .set({ version: sql<number>`version + 1` })
    .where('id', '=', userId)
    .returning('version')
    .executeTakeFirstOrThrow()
  return row.version
}

/** Notes which refusals were told. The book must be locked. */
export async function noteTold(
  tx: Kysely<UsersSchema>,
  of: { whose: 'user'; id: UserId } | { whose: 'tenant'; id: TenantId },
  resource: string,
): Promise<void> {
  const told = sql`set told = told || ${resource}::text`
  await (of.whose === 'user'
    ? sql`update quotas ${told} where user_id = ${of.id}`
    : sql`update tenant_quotas ${told} where tenant_id = ${of.id}`
  ).execute(tx)
}
