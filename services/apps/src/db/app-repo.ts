import type { AppId, TenantId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql } from 'kysely'
import type { AppRow, AppsSchema } from './schema.ts'

type Reader = Kysely<AppsSchema>

export async function findApp(db: Reader, id: AppId): Promise<AppRow | undefined> {
  return await db.selectFrom('apps').selectAll().where('id', '=', id).executeTakeFirst()
}

/** The tenant's app that has these bytes. */
export async function findAppByBytes(
  db: Reader,
  key: { tenantId: TenantId; sha256: string },
): Promise<AppRow | undefined> {
  return await db
    .selectFrom('apps')
    .selectAll()
    .where('tenant_id', '=', key.tenantId)
    .where('sha256', '=', key.sha256)
    .executeTakeFirst()
}

/** Undefined when the tenant has an app of these bytes. */
export async function insertApp(
  db: Reader,
  app: Insertable<AppsSchema['apps']>,
): Promise<AppRow | undefined> {
  return await db
    .insertInto('apps')
    .values(app)
    .onConflict((conflict) => conflict.constraint('apps_tenant_bytes').doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** A tenant's apps, newest first, after the one named. */
export async function listApps(
  db: Reader,
  query: { tenantId: TenantId; limit: number; before: string | undefined },
): Promise<AppRow[]> {
  let rows = db.selectFrom('apps').selectAll().where('tenant_id', '=', query.tenantId)
  if (query.before !== undefined) rows = rows.where('id', '<', query.before as AppId)
  return await rows.orderBy('id', 'desc').limit(query.limit).execute()
}

/** Keeps the app from being deleted until the transaction ends; false when there is none. */
export async function keepApp(tx: Tx<AppsSchema>, id: AppId): Promise<boolean> {
  const row = await tx.selectFrom('apps').select('id').where('id', '=', id).forKeyShare().executeTakeFirst()
  return row !== undefined
}

/** Locks out installations of the app until the transaction ends. */
export async function lockApp(tx: Tx<AppsSchema>, id: AppId): Promise<AppRow | undefined> {
  return await tx.selectFrom('apps').selectAll().where('id', '=', id).forUpdate().executeTakeFirst()
}

export async function deleteApp(tx: Tx<AppsSchema>, id: AppId): Promise<void> {
  await tx.deleteFrom('apps').where('id', '=', id).execute()
}

/** Which of the ids are apps. */
export async function existingApps(db: Reader, ids: readonly AppId[]): Promise<ReadonlySet<string>> {
  const { rows } = await sql<{ id: AppId }>`
    select id from apps where id = any(${[...ids]}::uuid[])`.execute(db)
  return new Set(rows.map(({ id }) => id))
}

/** Ids of apps by id, after the one named: to look at all of them in pieces. */
export async function pageAppIds(
  db: Reader,
  query: { after: AppId | undefined; limit: number; createdBefore: Date },
): Promise<AppId[]> {
  let rows = db.selectFrom('apps').select('id').where('created_at', '<', query.createdBefore)
  if (query.after !== undefined) rows = rows.where('id', '>', query.after)
  return (await rows.orderBy('id').limit(query.limit).execute()).map(({ id }) => id)
}

/** The database's time: `created_at` is by this clock. */
export async function databaseNow(db: Reader): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`select app_now() as now`.execute(db)
  const [row] = rows
  if (row === undefined) throw new Error('select app_now() gave no row')
  return row.now
}
