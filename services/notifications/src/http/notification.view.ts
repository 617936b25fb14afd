import type { Notification } from '@cloudphone/contracts/api/notifications-api'
import type { UserId } from '@cloudphone/contracts/id'
import type { NotificationRow } from '../domain/notification-service.ts'

/** A stored notice as the API and the sockets show it. */
export function viewOfNotification(row: NotificationRow): Notification {
  return {
    id: row.id,
    userId: row.user_id as UserId,
    type: row.type,
    title: row.title,
    message: row.message,
    english: row.english,
    data: row.data,
    createdAt: row.created_at.toISOString(),
    readAt: row.read_at?.toISOString() ?? null,
  }
}
