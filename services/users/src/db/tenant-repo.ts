import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { TenantRecord } from '../domain/tenant.ts'
import type { UsersSchema } from './schema.ts'

const columns = sql`id, slug, name, status, is_platform as "isPlatform", created_at as "createdAt"`

/** Makes a tenant; undefined when the slug is taken. */
export async function insertTenant(
  tx: Kysely<UsersSchema>,
  tenant: { id: TenantId; slug: string; name: string },
): Promise<TenantRecord | undefined> {
  const made = await sql<TenantRecord>`
    insert into tenants (id, slug, name) values (${tenant.id}, ${tenant.slug}, ${tenant.name})
    on conflict (slug) do nothing returning ${columns}`.execute(tx)
  return made.rows[0]
}

export async function findTenant(db: Kysely<UsersSchema>, id: TenantId): Promise<TenantRecord | undefined> {
  const found = await sql<TenantRecord>`select ${columns} from tenants where id = ${id}`.execute(db)
  return found.rows[0]
}

export async function findTenantBySlug(
  db: Kysely<UsersSchema>,
  slug: string,
): Promise<TenantRecord | undefined> {
  const found = await sql<TenantRecord>`select ${columns} from tenants where slug = ${slug}`.execute(db)
  return found.rows[0]
}

/** All tenants, the newest first, from below `beforeId` on; `limit + 1` of them when there are more. */
export async function listTenants(
  db: Kysely<UsersSchema>,
  query: { beforeId: string | undefined; limit: number },
): Promise<TenantRecord[]> {
  const found = await sql<TenantRecord>`
    select ${columns} from tenants
    where ${query.beforeId ?? null}::uuid is null or id < ${query.beforeId ?? null}::uuid
    order by id desc limit ${query.limit + 1}`.execute(db)
  return found.rows
}

export async function renameTenant(
  tx: Kysely<UsersSchema>,
  id: TenantId,
  name: string,
): Promise<TenantRecord | undefined> {
  const renamed = await sql<TenantRecord>`
    update tenants set name = ${name} where id = ${id} returning ${columns}`.execute(tx)
  return renamed.rows[0]
}

/** Suspends or activates a tenant; undefined when it is that already, is not there, or runs the platform. */
export async function moveTenant(
  tx: Kysely<UsersSchema>,
  id: TenantId,
  status: TenantRecord['status'],
): Promise<TenantRecord | undefined> {
  const moved = await sql<TenantRecord>`
    update tenants set status = ${status}
    where id = ${id} and status <> ${status} and not is_platform returning ${columns}`.execute(tx)
  return moved.rows[0]
}

/** The accounts of a tenant that are not deleted. */
export async function memberIds(tx: Kysely<UsersSchema>, tenantId: TenantId): Promise<UserId[]> {
  const found = await sql<{ id: UserId }>`
    select id from users where tenant_id = ${tenantId} and status <> 'deleted' order by id`.execute(tx)
  return found.rows.map(({ id }) => id)
}
