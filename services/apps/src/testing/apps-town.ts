import type { Caller } from '@cloudphone/contracts/access'
import { CheckAccess, type Device } from '@cloudphone/contracts/api/devices-api'
import type { DeviceStatus } from '@cloudphone/contracts/device'
import { type AllocationId, type DeviceId, systemIds } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { RunningService } from '@cloudphone/runtime/host'
import { type Binding, bind } from '@cloudphone/runtime/http-server'
import { defineProblems } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { openTown, type Town, type TownOptions } from '@cloudphone/testing/town'
import type { AppsSchema } from '../db/schema.ts'
import { apps } from '../service.ts'

/** A phone as the devices service's side of `CheckAccess` knows it. */
export interface Phone {
  readonly id: DeviceId
  readonly owner: Caller
  status: DeviceStatus
  allocationId: AllocationId | null
  fence: number
}

/** A town with two instances of the apps service and a devices service that judges access to phones. */
export interface AppsTown extends Town {
  readonly instances: readonly [RunningService, RunningService]
  readonly database: Database<AppsSchema>
  /** Calls as the devices service. */
  readonly devices: ServiceClient
  addPhone(owner: Caller): Phone
}

const refusals = defineProblems({
  device_not_found: [404, 'There is no phone {deviceId}.'],
  not_allocated: [403, 'The phone {deviceId} is not yours now.'],
})

/** Opens it. */
export async function openAppsTown(options: TownOptions): Promise<AppsTown> {
  const town = await openTown(options)
  const phones = new Map<DeviceId, Phone>()
  await town.neighbour('devices', [checkAccess(phones)])
  return {
    ...town,
    instances: [await town.start(apps), await town.start(apps)],
    database: town.databaseOf<AppsSchema>('apps'),
    devices: town.clientOf('devices'),
    addPhone: (owner) => {
      const phone: Phone = {
        ...{ id: systemIds.next<'device'>(), owner },
        ...{ status: 'RUNNING', allocationId: null, fence: 0 },
      }
      phones.set(phone.id, phone)
      return phone
    },
  }
}

function checkAccess(phones: ReadonlyMap<DeviceId, Phone>): Binding {
  return bind(CheckAccess, async ({ params: { deviceId }, query }) => {
    const phone = phones.get(deviceId)
    if (phone === undefined || phone.owner.tenantId !== query.tenantId) {
      throw refusals.device_not_found({ deviceId })
    }
    if (phone.owner.userId !== query.userId && !query.any) throw refusals.not_allocated({ deviceId })
    return { device: deviceOf(phone), allocationId: phone.allocationId, fence: phone.fence }
  })
}

function deviceOf({ id, owner, status, allocationId, fence }: Phone): Device {
  const at = '2026-01-01T00:00:00.000Z'
  return {
    ...{ id, name: 'phone', tenantId: owner.tenantId, userId: owner.userId, status, type: 'phone' },
    ...{ providerType: 'simulated', cpuCores: 2, memoryMB: 2048, storageMB: 2048, resolution: '720x1280' },
    ...{ dpi: 240, androidVersion: '11', containerName: null, adbHost: null, adbPort: null },
    ...{ allocationId, fence, hygiene: 'clean', metadata: {}, lastError: null },
    ...{ createdAt: at, updatedAt: at, startedAt: at },
  }
}
