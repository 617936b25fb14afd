import { z } from 'zod'

export const NotificationsSettings = z.object({
  /** Notices older than this are deleted. */
  NOTIFICATIONS_KEEP_DAYS: z.coerce.number().int().min(1).max(3650).default(90),
})
export type NotificationsSettings = z.infer<typeof NotificationsSettings>
