import type { Generated } from 'kysely'

interface NotificationTable {
  id: string
  tenant_id: string | null
  user_id: string
  type: string
  title: string
  message: string
  english: { title: string; message: string }
  data: Record<string, unknown>
  event_id: string
  created_at: Generated<Date>
  read_at: Date | null
}

/** The tables of the schema `notifications`. */
export interface NotificationsSchema {
  notification: NotificationTable
}
