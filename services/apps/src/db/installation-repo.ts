import type { AppId, DeviceId, InstallationId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql } from 'kysely'
import { liveStatuses, moves } from '../domain/installation.ts'
import type { AppsSchema, InstallationRow } from './schema.ts'

type Reader = Kysely<AppsSchema>
export type NewInstallation = Omit<Insertable<AppsSchema['installations']>, 'status' | 'reason' | 'ended_at'>

export async function findInstallation(db: Reader, id: InstallationId): Promise<InstallationRow | undefined> {
  return await db.selectFrom('installations').selectAll().where('id', '=', id).executeTakeFirst()
}

/** Undefined when the request has made one before, or one is live for the same app, phone, user and fence. */
export async function insertInstallation(
  tx: Tx<AppsSchema>,
  values: NewInstallation,
): Promise<InstallationRow | undefined> {
  return await tx
    .insertInto('installations')
    .values(values)
    .onConflict((conflict) => conflict.doNothing())
    .returningAll()
    .executeTakeFirst()
}

/** What kept `insertInstallation` from inserting; undefined when that has ended meanwhile. */
export async function findFirst(
  tx: Tx<AppsSchema>,
  wanted: NewInstallation,
): Promise<InstallationRow | undefined> {
  const { rows } = await sql<InstallationRow>`
    select * from installations
    where request_key = ${wanted.request_key}
       or (app_id = ${wanted.app_id} and device_id = ${wanted.device_id} and user_id = ${wanted.user_id}
           and fence = ${wanted.fence} and status in ('pending', 'installing'))
    order by request_key = ${wanted.request_key} desc limit 1`.execute(tx)
  return rows[0]
}

/** A tenant's installations, newest first, after the one named; only a user's, only a phone's if so asked. */
export async function listInstallations(
  db: Reader,
  query: {
    tenantId: TenantId
    userId: UserId | undefined
    deviceId: DeviceId | undefined
    limit: number
    before: string | undefined
  },
): Promise<InstallationRow[]> {
  let rows = db.selectFrom('installations').selectAll().where('tenant_id', '=', query.tenantId)
  if (query.userId !== undefined) rows = rows.where('user_id', '=', query.userId)
  if (query.deviceId !== undefined) rows = rows.where('device_id', '=', query.deviceId)
  if (query.before !== undefined) rows = rows.where('id', '<', query.before as InstallationId)
  return await rows.orderBy('id', 'desc').limit(query.limit).execute()
}

export async function countLive(tx: Tx<AppsSchema>, appId: AppId): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(*) as count from installations
    where app_id = ${appId} and status in ('pending', 'installing')`.execute(tx)
  return rows[0]?.count ?? 0
}

/** pending -> installing; nothing happens to one that is further. */
export async function begin(db: Reader, key: { id: InstallationId; appId: AppId }): Promise<void> {
  await sql`
    update installations set status = ${moves.begin.to}, version = version + 1
    where id = ${key.id} and app_id = ${key.appId} and status = any(${[...moves.begin.from]}::text[])`.execute(
    db,
  )
}

/** -> installed; undefined when it has ended before or is not ours. */
export async function complete(tx: Tx<AppsSchema>, id: InstallationId): Promise<InstallationRow | undefined> {
  const { rows } = await sql<InstallationRow>`
    update installations set status = ${moves.complete.to}, ended_at = app_now(), version = version + 1
    where id = ${id} and status = any(${[...moves.complete.from]}::text[]) returning *`.execute(tx)
  return rows[0]
}

/** -> failed; undefined when it has ended before or is not ours. */
export async function fail(
  tx: Tx<AppsSchema>,
  end: { id: InstallationId; reason: string },
): Promise<InstallationRow | undefined> {
  const { rows } = await sql<InstallationRow>`
    update installations
    set status = ${moves.fail.to}, reason = ${end.reason}, ended_at = app_now(), version = version + 1
    where id = ${end.id} and status = any(${[...moves.fail.from]}::text[]) returning *`.execute(tx)
  return rows[0]
}

/** All live ones of a phone -> failed. */
export async function failOfDevice(
  tx: Tx<AppsSchema>,
  end: { deviceId: DeviceId; reason: string },
): Promise<InstallationRow[]> {
  const { rows } = await sql<InstallationRow>`
    update installations
    set status = ${moves.fail.to}, reason = ${end.reason}, ended_at = app_now(), version = version + 1
    where device_id = ${end.deviceId} and status = any(${[...moves.fail.from]}::text[]) returning *`.execute(
    tx,
  )
  return rows
}

/** Those that have been live for longer than `minutes` -> failed, at most `limit` of them. */
export async function failOverdue(
  tx: Tx<AppsSchema>,
  end: { minutes: number; reason: string; limit: number },
): Promise<InstallationRow[]> {
  const { rows } = await sql<InstallationRow>`
    update installations
    set status = ${moves.fail.to}, reason = ${end.reason}, ended_at = app_now(), version = version + 1
    where id in (
      select id from installations
      where status in ('pending', 'installing') and requested_at < app_now() - make_interval(mins => ${end.minutes})
      order by requested_at limit ${end.limit} for update skip locked
    ) and status = any(${[...moves.fail.from]}::text[]) returning *`.execute(tx)
  return rows
}

/** Which of the ids have ended. */
export async function endedOf(db: Reader, ids: readonly string[]): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from installations
    where id = any(${[...ids]}::uuid[]) and not status = any(${[...liveStatuses]}::text[])`.execute(db)
  return rows.map(({ id }) => id)
}
