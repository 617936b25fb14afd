import { CommitQuota, ReleaseQuota, ReserveQuota } from '@cloudphone/contracts/api/quota-api'
import type { DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { ServiceClient } from '@cloudphone/runtime/service-client'

/** What a device takes of its owner's quota: one phone and these. */
export interface QuotaNeed {
  readonly userId: UserId
  readonly tenantId: TenantId
  readonly cpuCores: number
  readonly memoryMb: number
  readonly storageMb: number
}

/**
 * Quota of dedicated devices at the users service. The reservation's id is the device's, so each of these can be repeated.
 * All throw the users service's own problems.
 */
export class Quota {
  readonly #client: ServiceClient
  readonly #ttlSeconds: number

  /** A reservation that is never committed ends by itself after `ttlSeconds`. */
  constructor(client: ServiceClient, ttlSeconds: number) {
    this.#client = client
    this.#ttlSeconds = ttlSeconds
  }

  async reserve(deviceId: DeviceId, need: QuotaNeed): Promise<void> {
    await this.#client.call(ReserveQuota, {
      body: {
        reservationId: deviceId,
        userId: need.userId,
        tenantId: need.tenantId,
        cpu: need.cpuCores,
        memory: need.memoryMb,
        storage: need.storageMb,
        ttlSeconds: this.#ttlSeconds,
      },
    })
  }

  async commit(deviceId: DeviceId, signal: AbortSignal): Promise<void> {
    await this.#client.call(CommitQuota, { params: { reservationId: deviceId }, signal })
  }

  /** Ensure released; an unknown one leaves a tombstone at the users service. */
  async release(deviceId: DeviceId, signal?: AbortSignal): Promise<void> {
    await this.#client.call(ReleaseQuota, { params: { reservationId: deviceId }, ...(signal && { signal }) })
  }
}
