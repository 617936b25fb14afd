import { z } from 'zod'
import { UserId } from '../id.ts'
import { item, list, PageQuery, route } from '../route.ts'

export const Notification = z.object({
  id: z.guid(),
  userId: UserId,
  type: z.string(),
  /** For people, in Chinese; the same in English beside it. */
  title: z.string(),
  message: z.string(),
  english: z.object({ title: z.string(), message: z.string() }),
  data: z.record(z.string(), z.unknown()),
  createdAt: z.iso.datetime(),
  readAt: z.iso.datetime().nullable(),
})
export type Notification = z.infer<typeof Notification>

export const ListNotifications = route({
  name: 'listNotifications',
  service: 'notifications',
  method: 'GET',
  path: '/api/notifications',
  summary: 'One’s own notices, newest first.',
  access: { kind: 'user', permission: 'notifications:use' },
  query: PageQuery.extend({ unread: z.stringbool().optional() }),
  answer: list(Notification),
})

export const ReadNotification = route({
  name: 'readNotification',
  service: 'notifications',
  method: 'POST',
  path: '/api/notifications/:notificationId/read',
  summary: 'Mark a notice as read; idempotent.',
  access: { kind: 'user', permission: 'notifications:use' },
  audit: 'notification.read',
  params: z.strictObject({ notificationId: z.guid() }),
  answer: item(Notification),
  problems: ['notification_not_found'],
})
