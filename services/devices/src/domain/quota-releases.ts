import { listOwedReleases, settleRelease } from '../db/quota-release-repo.ts'
import type { Deps } from './deps.ts'
import type { Quota } from './quota.ts'

/** Gives back the quota of creations that failed. What cannot be given back now stays owed. */
export async function releaseOwedQuota({ database, telemetry }: Deps, quota: Quota): Promise<void> {
  for (const deviceId of await listOwedReleases(database.kysely, 100)) {
    try {
      await quota.release({ deviceId })
      await settleRelease(database.kysely, deviceId)
    } catch (error) {
      telemetry.quotaReleaseFailed(deviceId, error)
      // The users service is away: the others would fare no better.
      return
    }
  }
}
