import { listener, notifier } from '@cloudphone/db/listen'
import { defineService } from '@cloudphone/runtime/service'
import { NotificationsSettings } from './config.ts'
import { platformEvents } from './consumers/platform-events.ts'
import { recentNotifications } from './db/notification-repo.ts'
import type { NotificationsSchema } from './db/schema.ts'
import { NotificationService } from './domain/notification-service.ts'
import { notificationRoutes } from './http/notification.routes.ts'
import { viewOfNotification } from './http/notification.view.ts'
import { openSockets } from './sockets/notification-sockets.ts'
import { openTelemetry } from './telemetry.ts'

const channel = 'notifications.stored'
const dayMs = 24 * 3_600_000

/** Tells people what happened: stores notices and pushes them to open sockets. */
export const notifications = defineService<typeof NotificationsSettings, NotificationsSchema>({
  name: 'notifications',
  settings: NotificationsSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async ({ settings, database, audit, leases, ids, log, metrics, tokens, revocations, closing }) => {
    const telemetry = openTelemetry(log, metrics)
    const session = { url: database.directUrl, log }
    const wakes = closing.add('wake-ups', notifier({ ...session, applicationName: 'notifications wake-ups' }))
    const service = new NotificationService({
      database,
      audit,
      ids,
      telemetry,
      push: () => wakes.notify(channel),
    })
    const recent = async (userIds: readonly string[]) =>
      (await recentNotifications(database.kysely, userIds)).map(viewOfNotification)
    return {
      routes: notificationRoutes(service),
      handlers: platformEvents(service),
      extend: async (app) => {
        const sockets = closing.add(
          'sockets',
          openSockets({ server: app.server, tokens, revocations, log, telemetry, recent }),
        )
        const onNotify = () => void sockets.push()
        const ears = { ...session, channels: [channel], onNotify, applicationName: 'notifications listener' }
        closing.add('listener', listener(ears))
      },
      onReady: async () => {
        const work = () => service.forget(settings.NOTIFICATIONS_KEEP_DAYS)
        const loop = leases.loop({ name: 'notifications.forget', everyMs: dayMs, work })
        closing.defer('forget', () => loop.stop())
      },
    }
  },
})
