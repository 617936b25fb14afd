import { type EventHandler, on } from '@cloudphone/bus/consumer'
import type { ReceivedEvent } from '@cloudphone/contracts/event'
import { AllocationActivated, AllocationReleased } from '@cloudphone/contracts/events/allocation-events'
import { AppInstallCompleted, AppInstallFailed } from '@cloudphone/contracts/events/app-events'
import { DeviceCreationFailed, DeviceDeleted, DeviceFailed } from '@cloudphone/contracts/events/device-events'
import type { Tx } from '@cloudphone/db/database'
import * as notices from '../domain/notice.ts'
import type { NotificationService, NotificationsSchema } from '../domain/notification-service.ts'

/** Tells people what happened. The owner of a dedicated phone hears of its phone; a pooled phone's user of the hold. */
export function platformEvents(service: NotificationService): EventHandler<NotificationsSchema>[] {
  const tell = async (
    tx: Tx<NotificationsSchema>,
    event: ReceivedEvent<{ userId: string | null; tenantId?: string }>,
    notice: notices.Notice,
  ): Promise<void> => {
    const { userId, tenantId = null } = event.data
    if (userId !== null) await service.tell(tx, { eventId: event.id, userId, tenantId }, notice)
  }
  return [
    on(DeviceFailed, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.deviceFailed(event.data)),
    ),
    on(DeviceDeleted, async (tx: Tx<NotificationsSchema>, event) => {
      // A creation that failed says so by an event of its own.
      if (event.data.reason !== 'creation_failed') await tell(tx, event, notices.deviceDeleted(event.data))
    }),
    on(DeviceCreationFailed, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.creationFailed(event.data)),
    ),
    on(AllocationActivated, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.allocationActivated(event.data)),
    ),
    on(AllocationReleased, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.allocationReleased(event.data)),
    ),
    on(AppInstallCompleted, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.installCompleted(event.data)),
    ),
    on(AppInstallFailed, (tx: Tx<NotificationsSchema>, event) =>
      tell(tx, event, notices.installFailed(event.data)),
    ),
  ]
}
