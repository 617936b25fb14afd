import type { LeasedLoop } from '@cloudphone/lease/lease'
import { defineService } from '@cloudphone/runtime/service'
import { SchedulerSettings } from './config.ts'
import { deviceEvents } from './consumers/device-events.ts'
import { userEvents } from './consumers/user-events.ts'
import type { SchedulerSchema } from './db/schema.ts'
import { AllocationService } from './domain/allocation-service.ts'
import { openHolders } from './domain/holder.ts'
import { judgeInvariants } from './domain/invariants.ts'
import { PhoneMirror } from './domain/phone-news.ts'
import { releaser } from './domain/release.ts'
import { Sessions } from './domain/sessions.ts'
import { allocationRoutes } from './http/allocation.routes.ts'
import { startExpiry } from './loops/expiry.ts'
import { startQuotaReleases } from './loops/quota-releases.ts'
import {
  allocationGrant,
  allocationGrantWithoutSession,
  GRANT_TIMEOUT_MS,
} from './sagas/allocation-grant.saga.ts'
import { allocationRelease } from './sagas/allocation-release.saga.ts'
import { openTelemetry } from './telemetry.ts'

/** A reservation outlives the longest grant by five minutes, as those of devices do. */
const SESSION_SECONDS = GRANT_TIMEOUT_MS / 1000 + 300

/** Pooled phones and who holds them. */
export const scheduler = defineService<typeof SchedulerSettings, SchedulerSchema>({
  name: 'scheduler',
  settings: SchedulerSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async ({
    settings,
    database,
    outbox,
    audit,
    leases,
    client,
    ids,
    log,
    metrics,
    closing,
    openSagas,
  }) => {
    const telemetry = openTelemetry(log, metrics)
    const holders = openHolders(client)
    let releases: LeasedLoop | undefined
    const sessions = new Sessions({
      ...{ database, client, telemetry },
      ttlSeconds: SESSION_SECONDS,
      onOwed: () => void releases?.nudge(),
    })
    const parts = { holders, sessions, outbox, telemetry }
    const grant = allocationGrant(parts)
    const release = allocationRelease(parts)
    const sagas = openSagas([grant, allocationGrantWithoutSession(parts), release])
    const beginRelease = releaser({ sagas, audit, definition: release, ids, telemetry })
    const allocations = new AllocationService({
      ...{ database, sagas, audit, grant, beginRelease, sessions, ids, telemetry },
    })
    const mirror = new PhoneMirror({ beginRelease })
    return {
      routes: allocationRoutes(allocations),
      handlers: [...deviceEvents(mirror), ...userEvents(mirror)],
      invariants: () => judgeInvariants(database),
      onReady: async () => {
        const loop = startExpiry(leases, {
          allocations,
          everyMs: settings.SCHEDULER_EXPIRY_EVERY_MS,
          graceMs: settings.SCHEDULER_PHONE_LOST_GRACE_MS,
        })
        closing.defer('expiry', () => loop.stop())
        const owed = startQuotaReleases(leases, sessions)
        releases = owed
        closing.defer('quota releases', () => owed.stop())
      },
    }
  },
})
