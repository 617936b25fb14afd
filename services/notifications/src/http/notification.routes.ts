import { ListNotifications, ReadNotification } from '@cloudphone/contracts/api/notifications-api'
import { decodeCursor, pageOf } from '@cloudphone/runtime/cursor'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import type { NotificationService } from '../domain/notification-service.ts'
import { viewOfNotification } from './notification.view.ts'

export function notificationRoutes(service: NotificationService): Binding[] {
  return [
    bind(ListNotifications, async ({ caller, query }) => {
      const { limit, cursor, unread = false } = query
      const rows = await service.list(caller, { unread, limit, before: decodeCursor(cursor) })
      return pageOf(rows, limit, viewOfNotification, (row) => row.id)
    }),
    bind(ReadNotification, async ({ caller, params }) =>
      viewOfNotification(await service.read(caller, params.notificationId)),
    ),
  ]
}
