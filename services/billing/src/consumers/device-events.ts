import { on } from '@cloudphone/bus/consumer'
import {
  DeviceDeleted,
  DeviceFailed,
  DeviceStarted,
  DeviceStopped,
} from '@cloudphone/contracts/events/device-events'
import type { DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { ClosedBy, Run } from '../domain/meter.ts'
import type { Metering } from '../domain/metering.ts'

type TxOf = Parameters<Metering['begin']>[0]

/** Device events: dedicated phones are metered while they run. Those of pooled phones meter nothing: allocations do. */
export function deviceEvents(metering: Metering) {
  const ended = async (
    tx: TxOf,
    eventId: string,
    fact: Facts & { startedAt: string | null },
    end: { at: string; by: ClosedBy },
  ) => {
    const told = { at: new Date(end.at), by: end.by }
    if (fact.userId === null) return
    const run = runOf(fact, fact.startedAt)
    if (run === undefined) await metering.endWhatRan(tx, fact.deviceId, told, eventId)
    else await metering.end(tx, run, told, eventId)
  }
  return [
    on(DeviceStarted, async (tx: TxOf, { id, data }) => {
      const run = runOf(data, data.startedAt)
      if (run !== undefined) await metering.begin(tx, run, id)
    }),
    on(DeviceStopped, (tx: TxOf, { id, data }) =>
      ended(tx, id, data, { at: data.stoppedAt, by: 'device.stopped' }),
    ),
    on(DeviceFailed, (tx: TxOf, { id, data }) =>
      ended(tx, id, data, { at: data.failedAt, by: 'device.failed' }),
    ),
    on(DeviceDeleted, (tx: TxOf, { id, data }) =>
      ended(tx, id, { ...data, startedAt: null }, { at: data.deletedAt, by: 'device.deleted' }),
    ),
  ]
}

interface Facts {
  readonly deviceId: DeviceId
  readonly tenantId: TenantId
  readonly userId: UserId | null
}

/** The run of a dedicated phone that began then; undefined for a pooled phone and for an unknown start. */
function runOf({ deviceId, tenantId, userId }: Facts, startedAt: string | null): Run | undefined {
  if (userId === null || startedAt === null) return undefined
  return { deviceId, tenantId, userId, allocationId: null, startedAt: new Date(startedAt) }
}
