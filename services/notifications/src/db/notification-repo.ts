import type { Tx } from '@cloudphone/db/database'
import { type Kysely, type Selectable, sql } from 'kysely'
import type { NotificationsSchema } from './schema.ts'

export type NotificationRow = Selectable<NotificationsSchema['notification']>
export type NewNotification = Omit<NotificationRow, 'created_at' | 'read_at'>

/** Stores a notice; false when the event was told to this user before. */
export async function insertNotification(
  tx: Tx<NotificationsSchema>,
  notice: NewNotification,
): Promise<boolean> {
  const { english, data, ...plain } = notice
  const { rows } = await sql<{ id: string }>`
    insert into notification (id, tenant_id, user_id, type, title, message, english, data, event_id)
    values (${plain.id}, ${plain.tenant_id}, ${plain.user_id}, ${plain.type}, ${plain.title}, ${plain.message},
            ${JSON.stringify(english)}::jsonb, ${JSON.stringify(data)}::jsonb, ${plain.event_id})
    on conflict (event_id, user_id) do nothing returning id`.execute(tx)
  return rows.length > 0
}

/** A user's notices, newest first, after the one named. */
export async function listNotifications(
  db: Kysely<NotificationsSchema>,
  query: { userId: string; unread: boolean; limit: number; before: string | undefined },
): Promise<NotificationRow[]> {
  let rows = db.selectFrom('notification').selectAll().where('user_id', '=', query.userId)
  if (query.unread) rows = rows.where('read_at', 'is', null)
  if (query.before !== undefined) rows = rows.where('id', '<', query.before)
  return rows.orderBy('id', 'desc').limit(query.limit).execute()
}

/** Marks one of a user's unread notices as read and returns it; undefined when the user has no such one. */
export async function markRead(
  tx: Tx<NotificationsSchema>,
  key: { id: string; userId: string },
): Promise<NotificationRow | undefined> {
  return tx
    .updateTable('notification')
    .set({ read_at: sql<Date>`app_now()` })
    .where('id', '=', key.id)
    .where('user_id', '=', key.userId)
    .where('read_at', 'is', null)
    .returningAll()
    .executeTakeFirst()
}

/** One of a user's notices. */
export async function findNotification(
  db: Kysely<NotificationsSchema>,
  key: { id: string; userId: string },
): Promise<NotificationRow | undefined> {
  return db
    .selectFrom('notification')
    .selectAll()
    .where('id', '=', key.id)
    .where('user_id', '=', key.userId)
    .executeTakeFirst()
}

/** Notices of the last half minute for those users: what a push may still have to bring. */
export async function recentNotifications(
  db: Kysely<NotificationsSchema>,
  userIds: readonly string[],
): Promise<NotificationRow[]> {
  if (userIds.length === 0) return []
  return db
    .selectFrom('notification')
    .selectAll()
    .where('user_id', 'in', [...userIds])
    .where('created_at', '>', sql<Date>`app_now() - interval '30 seconds'`)
    .orderBy('id')
    .execute()
}

/** Deletes notices that are too old; returns how many. */
export async function deleteOld(db: Kysely<NotificationsSchema>, keepDays: number): Promise<number> {
  const result = await db
    .deleteFrom('notification')
    .where('created_at', '<', sql<Date>`app_now() - make_interval(days => ${keepDays})`)
    .executeTakeFirst()
  return Number(result.numDeletedRows)
}
