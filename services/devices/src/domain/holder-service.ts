import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { findDevice, liveSagaOf, lockDevice, raiseFence } from '../db/device-repo.ts'
import type { DeviceRow, DevicesSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { AdbKeyApplier } from './adb-key-applier.ts'
import type { Deps } from './deps.ts'
import { accessOf } from './device.ts'

/** The new holder of a pooled device, or nobody, under a higher fence. */
export interface Holder {
  readonly fence: number
  readonly allocationId: AllocationId | null
  readonly userId: UserId | null
}

/** Who holds pooled devices: the scheduler says so, the fence decides which of its words is the last. */
export class HolderService {
  readonly #deps: Deps
  readonly #keys: AdbKeyApplier
  readonly #soiled: () => void

  /** `soiled` is called whenever a phone has been left by its holder. */
  constructor(deps: Deps, keys: AdbKeyApplier, soiled: () => void) {
    this.#deps = deps
    this.#keys = keys
    this.#soiled = soiled
  }

  /**
   * Raises the fence and names the holder, then replaces the phone's adb keys, which cuts the connections of others. The row
   * comes first: what a crash leaves of the rest the repair loop does. Idempotent by fence.
   * @throws `stale_allocation` for a lower fence, `device_not_clean` before what the last holder left is gone, `adb_keys_pending` when a running phone did not take its keys in time.
   */
  async set(deviceId: DeviceId, holder: Holder): Promise<DeviceRow> {
    if ((holder.allocationId === null) !== (holder.userId === null)) {
      throw problems.holder_not_whole({ deviceId })
    }
    const device = await this.#deps.database.transaction(async (tx) => await decide(tx, deviceId, holder))
    await this.#deps.crash.reach('devices.holder_set')
    if (device.hygiene === 'soiled') this.#soiled()
    const done = await this.#keys.ensure(deviceId)
    // A phone that is off lets nobody in; its keys are replaced before it listens again.
    if (!done && device.status === 'RUNNING') throw problems.adb_keys_pending({ deviceId })
    this.#deps.telemetry.holderSet(deviceId, holder.allocationId, holder.fence)
    return device
  }

  /** May this user use the device now? @throws `device_not_found` or `not_allocated`. */
  async check(
    deviceId: DeviceId,
    asker: { userId: UserId; tenantId: TenantId; any: boolean },
  ): Promise<DeviceRow> {
    const device = await findDevice(this.#deps.database.kysely, deviceId)
    const access = device === undefined ? 'hidden' : accessOf(device, asker)
    if (device === undefined || access === 'hidden') throw problems.device_not_found({ deviceId })
    if (access === 'not_yours') throw problems.device_forbidden({ deviceId })
    if (access === 'not_allocated') throw problems.not_allocated({ deviceId })
    return device
  }
}

async function decide(tx: Tx<DevicesSchema>, deviceId: DeviceId, holder: Holder): Promise<DeviceRow> {
  const now = await lockDevice(tx, deviceId)
  if (now === undefined) throw problems.device_not_found({ deviceId })
  if (now.user_id !== null) throw problems.device_not_pooled({ deviceId })
  const again = now.fence === holder.fence && now.allocation_id === holder.allocationId
  if (again) return now
  if (now.fence >= holder.fence) {
    throw problems.stale_allocation({ deviceId, fence: holder.fence, currentFence: now.fence })
  }
  if (holder.allocationId !== null) {
    if (now.status !== 'RUNNING') throw problems.device_not_running({ deviceId, deviceStatus: now.status })
    if (now.hygiene !== 'clean') throw problems.device_not_clean({ deviceId, hygiene: now.hygiene })
    // Nobody follows another directly: what he has left on it is wiped first.
    if (now.allocation_id !== null) throw problems.device_not_clean({ deviceId, hygiene: 'soiled' })
    // A stop that the holder before asked for must not hit the next one.
    const sagaId = await liveSagaOf(tx, deviceId)
    if (sagaId !== undefined) throw problems.operation_in_progress({ deviceId, sagaId })
  }
  const raised = await raiseFence(tx, deviceId, holder)
  if (raised === undefined) {
    throw problems.stale_allocation({ deviceId, fence: holder.fence, currentFence: now.fence })
  }
  return raised
}
