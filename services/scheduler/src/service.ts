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
import { allocationRoutes } from './http/allocation.routes.ts'
import { startExpiry } from './loops/expiry.ts'
import { allocationGrant } from './sagas/allocation-grant.saga.ts'
import { allocationRelease } from './sagas/allocation-release.saga.ts'
import { openTelemetry } from './telemetry.ts'

/** Pooled phones and who holds them. */
export const scheduler = defineService<typeof SchedulerSettings, SchedulerSchema>({
  name: 'scheduler',
  settings: SchedulerSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async ({ settings, database, outbox, leases, client, ids, log, metrics, closing, openSagas }) => {
    const telemetry = openTelemetry(log, metrics)
    const holders = openHolders(client)
    const grant = allocationGrant({ holders, outbox, telemetry })
    const release = allocationRelease({ holders, outbox, telemetry })
    const sagas = openSagas([grant, release])
    const beginRelease = releaser({ sagas, definition: release, ids, telemetry })
    const allocations = new AllocationService({ database, sagas, grant, beginRelease, ids, telemetry })
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
      },
    }
  },
})
