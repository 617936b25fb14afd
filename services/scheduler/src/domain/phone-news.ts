import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { ReleaseReason } from '@cloudphone/contracts/events/allocation-events'
import type { AllocationId, DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { doomGrant, notePhoneLost } from '../db/allocation-repo.ts'
import { mirrorPhone, noteWipe } from '../db/phone-repo.ts'
import type { SchedulerSchema } from '../db/schema.ts'
import { mirrorUser } from '../db/user-repo.ts'
import type { BeginRelease } from './release.ts'

/** What every device event says. */
export interface PhoneFacts {
  readonly deviceId: DeviceId
  readonly deviceName: string
  readonly tenantId: TenantId
  readonly userId: UserId | null
  readonly allocationId: AllocationId | null
  readonly fence: number
}

/** What happened to a phone, beyond its new status. */
export interface PhoneNews {
  readonly status: DeviceStatus
  readonly deleted?: true
  /** What became of the wipe after its last holder. */
  readonly wiped?: 'proved' | 'failed'
  /** When the phone is lost to its holder: why and since when. `unsure`: another event will say why. */
  readonly lost?: {
    readonly reason: ReleaseReason
    readonly detail: string
    readonly at: Date
    readonly unsure?: true
  }
}

/** Takes in what other services tell. Each method works in the consumer's transaction. */
export class PhoneMirror {
  readonly #beginRelease: BeginRelease

  constructor(deps: { beginRelease: BeginRelease }) {
    this.#beginRelease = deps.beginRelease
  }

  /**
   * Mirrors a pooled phone by version, and releases the allocation that the event names, if it is still held under that
   * fence. The two are guarded apart (decision 24): an old event changes no mirror, but the loss it tells of did happen,
   * and a hold that came later is none of its business. Dedicated phones are nobody's to allocate.
   */
  async hear(
    tx: Tx<SchedulerSchema>,
    event: { readonly data: PhoneFacts; readonly aggregateVersion: number },
    news: PhoneNews,
  ): Promise<void> {
    const { deviceId, deviceName: name, tenantId, userId, allocationId, fence } = event.data
    if (userId !== null) return
    await mirrorPhone(tx, {
      ...{ deviceId, name, tenantId, fence, status: news.status },
      ...{ deleted: news.deleted ?? false, version: event.aggregateVersion },
    })
    // Its own guard is the fence: the mirror may have heard of the start that came after.
    if (news.wiped !== undefined) await noteWipe(tx, { deviceId, fence, isProved: news.wiped === 'proved' })
    if (allocationId === null || news.lost === undefined) return
    const { reason, detail, at: endedAt, unsure } = news.lost
    // A grant in hand turns back by itself; one that became ACTIVE just before is found by the update after it.
    if (await doomGrant(tx, { allocationId, fence, reason, detail })) return
    if (unsure === true) await notePhoneLost(tx, { allocationId, fence })
    else await this.#beginRelease(tx, { allocationId, fence, reason, detail, endedAt })
  }

  async hearUser(tx: Tx<SchedulerSchema>, user: { userId: UserId; tenantId: TenantId }): Promise<void> {
    await mirrorUser(tx, user)
  }
}
