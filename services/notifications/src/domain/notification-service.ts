import type { Caller } from '@cloudphone/contracts/access'
import type { Ids } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { Audit } from '@cloudphone/runtime/audit-log'
import {
  deleteOld,
  findNotification,
  insertNotification,
  listNotifications,
  markRead,
  type NotificationRow,
} from '../db/notification-repo.ts'
import type { NotificationsSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Notice } from './notice.ts'

/** Whom a notice is for, and which event it tells of. */
export interface Addressed {
  readonly eventId: string
  readonly userId: string
  readonly tenantId: string | null
}

export type { NotificationRow, NotificationsSchema }

/** Stores notices, shows them to their users, and has them pushed once they are stored for good. */
export class NotificationService {
  readonly #database: Database<NotificationsSchema>
  readonly #audit: Audit
  readonly #ids: Ids
  readonly #telemetry: Telemetry
  readonly #push: () => void

  constructor(options: {
    database: Database<NotificationsSchema>
    audit: Audit
    ids: Ids
    telemetry: Telemetry
    /** Wakes the sockets of every instance. */
    push: () => void
  }) {
    this.#database = options.database
    this.#audit = options.audit
    this.#ids = options.ids
    this.#telemetry = options.telemetry
    this.#push = options.push
  }

  /** Stores a notice in the consumer's transaction; it is pushed when that commits. A second one for the event is not stored. */
  async tell(tx: Tx<NotificationsSchema>, to: Addressed, notice: Notice): Promise<void> {
    const stored = await insertNotification(tx, {
      id: this.#ids.next<'notification'>(),
      tenant_id: to.tenantId,
      user_id: to.userId,
      event_id: to.eventId,
      ...notice,
    })
    if (!stored) return
    afterCommit(tx, () => {
      this.#telemetry.stored(notice.type)
      this.#push()
    })
  }

  /** The caller's own notices, newest first; one more than `limit`, to tell whether there is a next page. */
  list(
    caller: Caller,
    query: { unread: boolean; limit: number; before: string | undefined },
  ): Promise<NotificationRow[]> {
    return listNotifications(this.#database.kysely, {
      ...query,
      limit: query.limit + 1,
      userId: caller.userId,
    })
  }

  /** Marks one of the caller's own notices as read. @throws ProblemError `notification_not_found`. */
  async read(caller: Caller, notificationId: string): Promise<NotificationRow> {
    return await this.#database.transaction(async (tx) => {
      const key = { id: notificationId, userId: caller.userId }
      const read = await markRead(tx, key)
      if (read !== undefined) {
        const { tenantId } = caller
        const after = { type: read.type, readAt: read.read_at }
        await this.#audit.add(tx, { verb: 'notification.read', target: notificationId, tenantId, after })
        return read
      }
      const known = await findNotification(tx, key)
      if (known === undefined) throw problems.notification_not_found({ notificationId })
      this.#audit.nothingChanged()
      return known
    })
  }

  /** Deletes what is older than it should be kept. */
  async forget(keepDays: number): Promise<void> {
    await deleteOld(this.#database.kysely, keepDays)
  }
}
