import { on } from '@cloudphone/bus/consumer'
import {
  DeviceCreated,
  DeviceDeleted,
  DeviceFailed,
  DeviceReset,
  DeviceResetFailed,
  DeviceStarted,
  DeviceStatusChanged,
  DeviceStopped,
} from '@cloudphone/contracts/events/device-events'
import type { PhoneMirror, PhoneNews } from '../domain/phone-news.ts'

/** Device events: pooled phones come, run, fall and go. */
export function deviceEvents(mirror: PhoneMirror) {
  return [
    on(DeviceCreated, (tx, event) => mirror.hear(tx, event, { status: event.data.status })),
    on(DeviceStarted, (tx, event) => mirror.hear(tx, event, { status: 'RUNNING' })),
    on(DeviceStopped, (tx, event) => {
      const reason = event.data.reason === 'deletion' ? 'device_deleted' : 'device_stopped'
      return mirror.hear(tx, event, {
        status: 'STOPPED',
        lost: { reason, detail: '', at: new Date(event.data.stoppedAt) },
      })
    }),
    on(DeviceFailed, (tx, event) =>
      mirror.hear(tx, event, {
        status: 'ERROR',
        lost: { reason: 'device_failed', detail: event.data.reason, at: new Date(event.data.failedAt) },
      }),
    ),
    on(DeviceReset, (tx, event) => mirror.hear(tx, event, { status: event.data.status, wiped: 'proved' })),
    on(DeviceResetFailed, (tx, event) =>
      mirror.hear(tx, event, { status: event.data.status, wiped: 'failed' }),
    ),
    on(DeviceDeleted, (tx, event) =>
      mirror.hear(tx, event, {
        status: 'DELETING',
        deleted: true,
        lost: { reason: 'device_deleted', detail: event.data.reason, at: new Date(event.data.deletedAt) },
      }),
    ),
    on(DeviceStatusChanged, (tx, event) => mirror.hear(tx, event, newsOf(event.data))),
  ]
}

/** A status says that a phone is lost, but of a failed one only `device.failed` says why. */
function newsOf({
  newStatus: status,
  changedAt,
}: {
  newStatus: PhoneNews['status']
  changedAt: string
}): PhoneNews {
  const at = new Date(changedAt)
  switch (status) {
    case 'STOPPED':
      return { status, lost: { reason: 'device_stopped', detail: '', at } }
    case 'MAINTENANCE':
      return { status, lost: { reason: 'device_stopped', detail: 'maintenance', at } }
    case 'ERROR':
      return { status, lost: { reason: 'device_failed', detail: '', at, unsure: true } }
    default:
      return { status }
  }
}
