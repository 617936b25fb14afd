import { listener, notifier } from '@cloudphone/db/listen'
import { defineService } from '@cloudphone/runtime/service'
import { AppsSettings } from './config.ts'
import { installEvents } from './consumers/install-events.ts'
import { endedOf } from './db/installation-repo.ts'
import type { AppsSchema } from './db/schema.ts'
import { AppService } from './domain/app-service.ts'
import { judgeInvariants } from './domain/blob-sweep.ts'
import { EndWatch } from './domain/end-watch.ts'
import { InstallationService } from './domain/installation-service.ts'
import { appRoutes } from './http/app.routes.ts'
import { installationRoutes } from './http/installation.routes.ts'
import { startBlobSweep, startWatchdog } from './loops/apps-loops.ts'
import { openTelemetry } from './telemetry.ts'

const channel = 'apps.installation_ended'

/** Apps and their way onto phones. */
export const apps = defineService<typeof AppsSettings, AppsSchema>({
  name: 'apps',
  settings: AppsSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async (context) => {
    const {
      settings,
      database,
      outbox,
      audit,
      leases,
      blobs,
      client,
      clock,
      crash,
      ids,
      log,
      metrics,
      closing,
    } = context
    const telemetry = openTelemetry(log, metrics, { waiting: () => watch.size })
    const session = { url: database.directUrl, log }
    const wakes = closing.add('wake-ups', notifier({ ...session, applicationName: 'apps wake-ups' }))
    const watch: EndWatch = new EndWatch({
      clock,
      endedOf: (waiting) => endedOf(database.kysely, waiting),
      onError: telemetry.watchFailed,
    })
    const tellEnded = () => {
      watch.look()
      wakes.notify(channel)
    }
    const store = new AppService({
      ...{ database, audit, blobs, ids, telemetry, crash },
      maxApkBytes: settings.APPS_MAX_APK_BYTES,
    })
    const wait = (id: string, timeoutMs: number) => watch.wait(id, timeoutMs)
    const installations = new InstallationService({
      ...{ database, outbox, audit, client, ids, telemetry },
      ...{ wait, tellEnded },
    })
    return {
      routes: [...appRoutes(store, installations), ...installationRoutes(store, installations)],
      handlers: installEvents(installations),
      invariants: async () => ({ reports: await judgeInvariants({ database, blobs }), claims: [] }),
      extend: async () => {
        const ears = { ...session, channels: [channel], onNotify: () => watch.look() }
        closing.add('listener', listener({ ...ears, applicationName: 'apps listener' }))
        // Closed before the HTTP server, which would wait for the answers that are held.
        closing.add('watch', watch)
      },
      onReady: async () => {
        const watchdog = startWatchdog(leases, { installations, settings })
        const sweep = startBlobSweep(leases, { database, blobs, telemetry, settings })
        closing.defer('loops', async () => void (await Promise.all([watchdog.stop(), sweep.stop()])))
      },
    }
  },
})
