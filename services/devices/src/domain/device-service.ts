import { type Caller, may } from '@cloudphone/contracts/access'
import type { CreateDevice, ListDevices } from '@cloudphone/contracts/api/devices-api'
import { DeviceCreationRequested } from '@cloudphone/contracts/events/device-events'
import { DeviceId, type UserId } from '@cloudphone/contracts/id'
import type { BodyOf, QueryOf } from '@cloudphone/contracts/route'
import { common } from '@cloudphone/runtime/problem'
import type { Sagas } from '@cloudphone/saga/engine'
import { findDevice, findTombstone, insertDevice, listDevices } from '../db/device-repo.ts'
import type { DeviceRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Deps } from './deps.ts'
import { idOfRequest } from './device.ts'
import { fact, tell } from './facts.ts'
import { type Accepted, absent, type LifecycleDefinitions, visibleDevice } from './lifecycle-service.ts'
import type { Quota } from './quota.ts'

/** What is wanted of a new device. */
export type DeviceWish = BodyOf<typeof CreateDevice>

/** Makes devices and shows them. */
export class DeviceService {
  readonly #deps: Deps
  readonly #sagas: Pick<Sagas, 'start'>
  readonly #quota: Quota
  readonly #definitions: Pick<LifecycleDefinitions, 'device_creation'>

  constructor(
    deps: Deps,
    parts: {
      sagas: Pick<Sagas, 'start'>
      quota: Quota
      definitions: Pick<LifecycleDefinitions, 'device_creation'>
    },
  ) {
    this.#deps = deps
    this.#sagas = parts.sagas
    this.#quota = parts.quota
    this.#definitions = parts.definitions
  }

  /**
   * Reserves quota (or notes that it is settled later, see `Quota`), then writes the device's row, its saga and `device.creation_requested` in one transaction. The id is
   * derived from `requestKey`: a request that is tried again after a crash finds what the first one made.
   */
  async create(caller: Caller, wish: DeviceWish, requestKey: string): Promise<Accepted> {
    const ownerId = ownerOf(caller, wish.userId)
    const deviceId = DeviceId.parse(idOfRequest('device', requestKey))
    const known = await this.#knownFrom(caller, deviceId)
    if (known !== undefined) {
      this.#deps.audit.nothingChanged()
      return known
    }
    const isGranted =
      ownerId !== null && (await this.#reserve(caller, { wish, ownerId, deviceId })) === 'later'
    await this.#deps.crash.reach('devices.quota_reserved')
    const accepted = await this.#accept(caller, { wish, ownerId, deviceId, requestKey, isGranted })
    if (accepted !== undefined) {
      this.#deps.telemetry.accepted('creation', deviceId, accepted.sagaId)
      return accepted
    }
    // The same request was carried out beside us.
    this.#deps.audit.nothingChanged()
    const other = await this.#knownFrom(caller, deviceId)
    if (other === undefined) throw problems.device_not_found({ deviceId })
    return other
  }

  async get(caller: Caller, deviceId: DeviceId): Promise<DeviceRow> {
    return await visibleDevice(this.#deps, caller, deviceId)
  }

  /** One row more than asked for when there is a next page. */
  async list(
    caller: Caller,
    query: QueryOf<typeof ListDevices>,
    beforeOrdinal: number | undefined,
  ): Promise<DeviceRow[]> {
    return await listDevices(this.#deps.database.kysely, {
      tenantId: caller.tenantId,
      visibleTo: may(caller, 'devices:any') ? undefined : caller.userId,
      status: query.status,
      userId: query.userId,
      pool: query.pool,
      beforeOrdinal,
      limit: query.limit,
    })
  }

  async #knownFrom(caller: Caller, deviceId: DeviceId): Promise<Accepted | undefined> {
    const { kysely } = this.#deps.database
    const device = await findDevice(kysely, deviceId)
    if (device !== undefined) return { sagaId: device.creation_saga_id, device }
    if ((await findTombstone(kysely, deviceId)) === undefined) return undefined
    throw await absent(this.#deps, caller, deviceId)
  }

  async #reserve(
    { tenantId }: Caller,
    { wish, ownerId, deviceId }: { wish: DeviceWish; ownerId: UserId; deviceId: DeviceId },
  ): Promise<'reserved' | 'later'> {
    const { cpuCores, memoryMB: memoryMb, storageMB: storageMb } = wish
    return await this.#quota.reserve(deviceId, { userId: ownerId, tenantId, cpuCores, memoryMb, storageMb })
  }

  async #accept(
    caller: Caller,
    request: {
      wish: DeviceWish
      ownerId: UserId | null
      deviceId: DeviceId
      requestKey: string
      isGranted: boolean
    },
  ): Promise<Accepted | undefined> {
    const { wish, ownerId, deviceId, requestKey } = request
    const providerType = wish.providerType ?? this.#deps.settings.DEVICES_DEFAULT_PROVIDER
    const sagaId = `device_creation-${deviceId}`
    return await this.#deps.database.transaction(async (tx) => {
      const device = await insertDevice(tx, {
        id: deviceId,
        tenant_id: caller.tenantId,
        user_id: ownerId,
        created_by: caller.userId,
        creation_saga_id: sagaId,
        name: wish.name,
        status: 'CREATING',
        type: wish.type,
        provider_type: providerType,
        cpu_cores: wish.cpuCores,
        memory_mb: wish.memoryMB,
        storage_mb: wish.storageMB,
        resolution: wish.resolution,
        dpi: wish.dpi,
        android_version: wish.androidVersion,
        provider_specific_config: JSON.stringify(wish.providerSpecificConfig ?? {}),
        metadata: JSON.stringify(wish.metadata),
        version: 1,
      })
      if (device === undefined) return undefined
      if (request.isGranted && ownerId !== null) await this.#quota.grant(tx, { deviceId, userId: ownerId })
      await this.#sagas.start(tx, {
        definition: this.#definitions.device_creation,
        sagaId,
        businessKey: requestKey,
        subject: deviceId,
        userId: ownerId ?? caller.userId,
        tenantId: caller.tenantId,
        input: { deviceId, userId: ownerId, providerType },
      })
      await tell(this.#deps.outbox, tx, device, [fact(DeviceCreationRequested, { sagaId, providerType })])
      await this.#deps.audit.add(tx, {
        ...{ verb: 'device.create', target: deviceId, tenantId: caller.tenantId },
        after: { ...wish, userId: ownerId, providerType, sagaId },
      })
      return { sagaId, device }
    })
  }
}

/** Decision 1: one's own by default, another user's or nobody's for operators. */
function ownerOf(caller: Caller, wanted: UserId | null | undefined): UserId | null {
  if (wanted === undefined || wanted === caller.userId) return caller.userId
  const permission = wanted === null ? 'devices:pool' : 'devices:any'
  if (!may(caller, permission)) throw common.forbidden({ permission })
  return wanted
}
