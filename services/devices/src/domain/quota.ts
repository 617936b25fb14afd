import { CommitQuota, ReleaseQuota, ReserveQuota } from '@cloudphone/contracts/api/quota-api'
import type { DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { ProblemError } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import {
  countGrants,
  insertGrant,
  isGranted,
  listGrants,
  MOST_GRANTS,
  noteRefused,
  settleGrant,
} from '../db/quota-grant-repo.ts'
import type { DevicesSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Telemetry } from '../telemetry.ts'
import { type Excess, excessOf, isAway, type PhoneNeed, type QuotaCache } from './quota-cache.ts'

/** What a device takes of its owner's quota: one phone and these. */
export interface QuotaNeed extends PhoneNeed {
  readonly userId: UserId
  readonly tenantId: TenantId
}

const SETTLED_PER_TURN = 100

/**
 * Quota of dedicated devices at the users service. The reservation's id is the device's, so each of these can be repeated.
 * All throw the users service's own problems. While that service does not answer, and only if it is allowed, a user may
 * have five phones at most whose quota is settled when it answers again.
 */
export class Quota {
  readonly #database: Database<DevicesSchema>
  readonly #client: Pick<ServiceClient, 'call'>
  readonly #cache: QuotaCache
  readonly #telemetry: Telemetry
  readonly #ttlSeconds: number
  readonly #allowsOnError: boolean

  /** A reservation that is never committed ends by itself after `ttlSeconds`. */
  constructor(deps: {
    database: Database<DevicesSchema>
    client: Pick<ServiceClient, 'call'>
    cache: QuotaCache
    telemetry: Telemetry
    ttlSeconds: number
    /** `QUOTA_ALLOW_ON_ERROR`. */
    allowsOnError: boolean
  }) {
    this.#database = deps.database
    this.#client = deps.client
    this.#cache = deps.cache
    this.#telemetry = deps.telemetry
    this.#ttlSeconds = deps.ttlSeconds
    this.#allowsOnError = deps.allowsOnError
  }

  /**
   * Takes quota for a device. `later`: nobody could be asked, and `grant` must write down that it is to be settled.
   * @throws ProblemError `quota_exceeded`, `service_unavailable` and what else the users service answers.
   */
  async reserve(deviceId: DeviceId, need: QuotaNeed): Promise<'reserved' | 'later'> {
    const { userId } = need
    const known = await this.#cache.refusal(userId, need)
    if (known !== undefined) throw exceeded(need, known)
    try {
      await this.#reserveNow(deviceId, need)
    } catch (error) {
      if (isAway(error) && this.#allowsOnError) return await this.#postpone(need, error)
      // The next ones are refused at once, with the figures of now.
      if (error instanceof ProblemError && error.code === 'quota_exceeded') this.#refreshSoon(userId)
      throw error
    }
    await this.#cache.addPhone(userId, need)
    return 'reserved'
  }

  /** In the transaction that makes the device's row. @throws ProblemError `quota_unsettled` when it would be the sixth. */
  async grant(
    tx: Parameters<typeof insertGrant>[0],
    device: { deviceId: DeviceId; userId: UserId },
  ): Promise<void> {
    if (!(await insertGrant(tx, device))) throw problems.quota_unsettled({ ...device, limit: MOST_GRANTS })
    this.#telemetry.quotaPostponed(device.deviceId, device.userId)
  }

  /** Keeps a device's quota, or leaves that to be settled later. */
  async commit(device: { deviceId: DeviceId; userId: UserId }, signal: AbortSignal): Promise<void> {
    const { deviceId } = device
    if (await isGranted(this.#database.kysely, deviceId)) return
    try {
      await this.#client.call(CommitQuota, { params: { reservationId: deviceId }, signal })
    } catch (error) {
      if (!isAway(error) || !this.#allowsOnError || !(await insertGrant(this.#database.kysely, device))) {
        throw error
      }
      this.#telemetry.quotaPostponed(deviceId, device.userId)
    }
  }

  /** Ensure released; an unknown one leaves a tombstone at the users service. */
  async release(device: { deviceId: DeviceId; userId?: UserId | null }, signal?: AbortSignal): Promise<void> {
    const params = { reservationId: device.deviceId }
    await this.#client.call(ReleaseQuota, { params, ...(signal && { signal }) })
    if (device.userId) await this.#cache.expire(device.userId)
  }

  /** Reports the phones that were made while nobody could be asked. What is refused stays, and is tried again. */
  async settle(): Promise<void> {
    for (const grant of await listGrants(this.#database.kysely, SETTLED_PER_TURN)) {
      const { deviceId, userId } = grant
      try {
        await this.#reserveNow(deviceId, grant)
        await this.#client.call(CommitQuota, { params: { reservationId: deviceId } })
      } catch (error) {
        // The users service is away: the others would fare no better.
        if (isAway(error)) return
        // A released one belongs to a device that is going: its row goes with it.
        if (error instanceof ProblemError && error.code !== 'reservation_released') {
          await noteRefused(this.#database.kysely, deviceId)
          this.#telemetry.quotaUnsettled(deviceId, userId, error)
          continue
        }
        if (!(error instanceof ProblemError)) throw error
      }
      await settleGrant(this.#database.kysely, deviceId)
      await this.#cache.expire(userId)
      this.#telemetry.quotaSettled(deviceId, userId)
    }
  }

  async #reserveNow(deviceId: DeviceId, need: QuotaNeed): Promise<void> {
    await this.#client.call(ReserveQuota, {
      body: {
        reservationId: deviceId,
        userId: need.userId,
        tenantId: need.tenantId,
        devices: 1,
        cpu: need.cpuCores,
        memory: need.memoryMb,
        storage: need.storageMb,
        ttlSeconds: this.#ttlSeconds,
      },
    })
  }

  /** What was known last still refuses; then five phones are allowed, those that others make at this moment included. */
  async #postpone(need: QuotaNeed, cause: unknown): Promise<'later'> {
    const known = await this.#cache.lastKnown(need.userId)
    const unsettled = await countGrants(this.#database.kysely, need.userId)
    const excess = known && excessOf(withUnsettled(known, unsettled), need)
    if (excess !== undefined) throw exceeded(need, excess)
    if (known !== undefined && known.tenantId !== need.tenantId) throw cause
    if (unsettled >= MOST_GRANTS) throw problems.quota_unsettled({ userId: need.userId, limit: MOST_GRANTS })
    return 'later'
  }

  #refreshSoon(userId: UserId): void {
    this.#cache.refresh(userId).catch((error: unknown) => this.#telemetry.quotaReadFailed(userId, error))
  }
}

/** Phones that were made since it was read are counted, if not what they take. */
function withUnsettled<Known extends Parameters<typeof excessOf>[0]>(known: Known, phones: number): Known {
  const { user } = known
  return { ...known, user: { ...user, used: { ...user.used, devices: user.used.devices + phones } } }
}

function exceeded({ userId, tenantId }: QuotaNeed, excess: Excess): ProblemError {
  const id = excess.whose === 'user' ? userId : tenantId
  return problems.quota_exceeded({ userId, tenantId, id, ...excess })
}
