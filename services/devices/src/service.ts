import { defineService } from '@cloudphone/runtime/service'
import { DevicesSettings } from './config.ts'
import { appEvents } from './consumers/app-events.ts'
import { userEvents } from './consumers/user-events.ts'
import { registerNode } from './db/node-repo.ts'
import { listGrantedIds } from './db/quota-grant-repo.ts'
import type { DevicesSchema } from './db/schema.ts'
import { AdbKeyApplier } from './domain/adb-key-applier.ts'
import { AdbKeyService } from './domain/adb-key-service.ts'
import type { Deps } from './domain/deps.ts'
import { DeviceService } from './domain/device-service.ts'
import { HolderService } from './domain/holder-service.ts'
import { judgeInvariants } from './domain/invariants.ts'
import { LifecycleService } from './domain/lifecycle-service.ts'
import { PhoneOperations } from './domain/phone-operations.ts'
import { PhoneStreams } from './domain/phone-streams.ts'
import { Quota } from './domain/quota.ts'
import { QuotaCache } from './domain/quota-cache.ts'
import { resumeAfterShutdown, stopForShutdown } from './domain/shutdown.ts'
import { TunnelService } from './domain/tunnel-service.ts'
import { Visits } from './domain/visits.ts'
import { adbKeyRoutes } from './http/adb-key.routes.ts'
import { deviceRoutes } from './http/device.routes.ts'
import { internalRoutes } from './http/internal.routes.ts'
import { operationRoutes } from './http/operation.routes.ts'
import { quotaRoutes } from './http/quota.routes.ts'
import { beginLoops, type DevicesLoops } from './loops/devices-loop.ts'
import { openProviders } from './providers/open-providers.ts'
import { appInstallation } from './sagas/app-installation.saga.ts'
import { CREATION_TIMEOUT_MS, deviceCreation } from './sagas/device-creation.saga.ts'
import { deviceDeletion } from './sagas/device-deletion.saga.ts'
import { deviceReset } from './sagas/device-reset.saga.ts'
import { deviceStart } from './sagas/device-start.saga.ts'
import { deviceStop } from './sagas/device-stop.saga.ts'
import { serveTunnels } from './sockets/adb-tunnels.ts'
import { openTelemetry, showQuota } from './telemetry.ts'

/** A reservation outlives the longest creation by five minutes (decision 15). */
const RESERVATION_SECONDS = CREATION_TIMEOUT_MS / 1000 + 300

export const devices = defineService<typeof DevicesSettings, DevicesSchema>({
  name: 'devices',
  settings: DevicesSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async (context) => {
    const { settings, closing, leases } = context
    const providers = openProviders(settings, context.clock)
    for (const provider of Object.values(providers)) closing.add(`provider ${provider.type}`, provider)
    const deps: Deps = { ...context, providers, telemetry: openTelemetry(context.log, context.metrics) }
    await registerNode(context.database.kysely, {
      id: context.ids.next(),
      name: settings.DEVICES_NODE_NAME,
      provider_type: 'simulated',
      reach_address: '127.0.0.1',
      cpu_total: settings.DEVICES_NODE_CPU,
      memory_total_mb: settings.DEVICES_NODE_MEMORY_MB,
      phones_total: settings.DEVICES_NODE_PHONES,
    })

    let loops: DevicesLoops | undefined
    const soon = (loop: 'keys' | 'quota' | 'handover') => () => void loops?.[loop].nudge()
    const { client, clock, database } = context
    const { telemetry } = deps
    const cache = new QuotaCache({ client, clock, telemetry, entries: context.cache })
    const quota = new Quota({
      ...{ database, client, cache, telemetry },
      ttlSeconds: RESERVATION_SECONDS,
      allowsOnError: settings.QUOTA_ALLOW_ON_ERROR,
    })
    showQuota(context.metrics, {
      hitRate: () => cache.statistics().hitRate,
      unsettled: async () => (await listGrantedIds(database.kysely)).size,
    })
    const keys = new AdbKeyApplier(deps)
    const definitions = {
      device_creation: deviceCreation(deps, { quota, keys, quotaOwed: soon('quota') }),
      device_start: deviceStart(deps, keys),
      device_stop: deviceStop(deps),
      device_reset: deviceReset(deps, keys),
      device_deletion: deviceDeletion(deps, quota),
      app_installation: appInstallation(deps, keys),
    }
    const sagas = context.openSagas(Object.values(definitions))
    const parts = { sagas, definitions, quota, keys, leases }
    const visits = closing.add('visits', new Visits(deps, context.revocations))
    const operations = new PhoneOperations(deps, keys)

    return {
      routes: [
        ...deviceRoutes({
          devices: new DeviceService(deps, parts),
          lifecycle: new LifecycleService(deps, sagas, definitions),
          operations,
        }),
        ...operationRoutes(operations, new PhoneStreams(deps, keys, visits)),
        ...quotaRoutes(cache),
        ...adbKeyRoutes(new AdbKeyService(deps, soon('keys'))),
        ...internalRoutes({
          holders: new HolderService(deps, keys, soon('handover')),
          stopForShutdown: () => stopForShutdown(deps),
        }),
      ],
      extend: async (app) =>
        serveTunnels(app, { tokens: context.tokens, tunnels: new TunnelService(deps, visits) }),
      handlers: [...appEvents(parts), ...userEvents(cache)],
      invariants: () => judgeInvariants(deps),
      onReady: async () => {
        loops = closing.add('loops', beginLoops(deps, parts))
        await resumeAfterShutdown(deps, sagas, definitions)
      },
    }
  },
})
