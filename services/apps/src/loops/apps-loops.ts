import type { BlobStore } from '@cloudphone/blobs/blob-store'
import type { Database } from '@cloudphone/db/database'
import type { LeasedLoop, Leases } from '@cloudphone/lease/lease'
import type { AppsSettings } from '../config.ts'
import { findLost, sweepOrphans } from '../domain/blob-sweep.ts'
import type { AppsSchema, InstallationService } from '../domain/installation-service.ts'
import type { Telemetry } from '../telemetry.ts'

/** Ends installations that nobody ended, in one instance at a time. Two at once do no harm: each end is a guarded update. */
export function startWatchdog(
  leases: Leases,
  { installations, settings }: { installations: InstallationService; settings: AppsSettings },
): LeasedLoop {
  return leases.loop({
    name: 'apps.watchdog',
    everyMs: settings.APPS_WATCHDOG_EVERY_MS,
    work: async ({ signal }) => {
      await installations.expire(settings.APPS_INSTALL_TIMEOUT_MINUTES, signal)
    },
  })
}

/** Deletes what uploads and deletions that were cut off left behind, and counts apps whose bytes are gone. */
export function startBlobSweep(
  leases: Leases,
  options: {
    database: Database<AppsSchema>
    blobs: BlobStore
    telemetry: Telemetry
    settings: AppsSettings
  },
): LeasedLoop {
  const { settings, telemetry } = options
  const orphanAfterMs = settings.APPS_ORPHAN_AFTER_MINUTES * 60_000
  return leases.loop({
    name: 'apps.blob-sweep',
    everyMs: settings.APPS_SWEEP_EVERY_MS,
    work: async ({ signal }) => {
      await sweepOrphans(options, { orphanAfterMs, signal })
      telemetry.blobsCompared((await findLost(options)).lost)
    },
  })
}
