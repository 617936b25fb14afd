import { CommitQuota, ReleaseQuota, ReserveQuota } from '@cloudphone/contracts/api/quota-api'
import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { listOwed, oweRelease, settleRelease } from '../db/quota-release-repo.ts'
import type { SchedulerSchema } from '../db/schema.ts'
import type { SchedulerTelemetry } from '../telemetry.ts'

const RELEASES_PER_TURN = 100

/**
 * Sessions of quota at the users service: each allocation holds one, from before its phone is claimed until it has ended.
 * A reservation whose process dies before the claim ends by itself; from the claim on, the end of the allocation writes
 * down that it is owed. All calls can be repeated and throw the users service's own problems.
 */
export class Sessions {
  readonly #database: Database<SchedulerSchema>
  readonly #client: Pick<ServiceClient, 'call'>
  readonly #telemetry: SchedulerTelemetry
  readonly #ttlSeconds: number
  readonly #onOwed: () => void

  /** `onOwed` is called after each commit that owes a release; `ttlSeconds` outlives the longest grant. */
  constructor(deps: {
    database: Database<SchedulerSchema>
    client: Pick<ServiceClient, 'call'>
    telemetry: SchedulerTelemetry
    ttlSeconds: number
    onOwed: () => void
  }) {
    this.#database = deps.database
    this.#client = deps.client
    this.#telemetry = deps.telemetry
    this.#ttlSeconds = deps.ttlSeconds
    this.#onOwed = deps.onOwed
  }

  /** @throws ProblemError `quota_exceeded`, `user_suspended`, `user_not_found`, `service_unavailable`. */
  async reserve(reservationId: string, holder: { userId: UserId; tenantId: TenantId }): Promise<void> {
    const { userId, tenantId } = holder
    await this.#client.call(ReserveQuota, {
      body: { reservationId, userId, tenantId, devices: 0, sessions: 1, ttlSeconds: this.#ttlSeconds },
    })
  }

  async commit(reservationId: string, signal: AbortSignal): Promise<void> {
    await this.#client.call(CommitQuota, { params: { reservationId }, signal })
  }

  /** Gives back what no allocation came to hold. If that fails its time runs out. */
  async giveUp(reservationId: string): Promise<void> {
    try {
      await this.#client.call(ReleaseQuota, { params: { reservationId } })
    } catch (error) {
      this.#telemetry.sessionKept({ reservationId, error })
    }
  }

  /** In the transaction that ends an allocation: its session is given back soon. Null: it has none. */
  async owe(tx: Tx<SchedulerSchema>, reservationId: string | null): Promise<void> {
    if (reservationId === null) return
    await oweRelease(tx, reservationId)
    afterCommit(tx, this.#onOwed)
  }

  /** Gives back what is owed. What cannot be given back now stays owed. */
  async releaseOwed(): Promise<void> {
    for (const reservationId of await listOwed(this.#database.kysely, RELEASES_PER_TURN)) {
      try {
        await this.#client.call(ReleaseQuota, { params: { reservationId } })
      } catch (error) {
        this.#telemetry.sessionKept({ reservationId, error })
        // The users service is away: the others would fare no better.
        return
      }
      await settleRelease(this.#database.kysely, reservationId)
    }
  }
}
