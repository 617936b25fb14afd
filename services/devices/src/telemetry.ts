import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'

/** Every business fact of this service, reported once: a log line and a counter. */
export function openTelemetry(log: Logger, metrics: Metrics) {
  const operations = metrics.counter({
    name: 'devices_operations_total',
    help: 'Device operations by what became of them.',
    labels: ['operation', 'outcome'],
  })
  const repairs = metrics.counter({
    name: 'devices_reconciler_repairs_total',
    help: 'What the reconciler found and did.',
    labels: ['repair'],
  })
  const installs = metrics.counter({
    name: 'devices_app_installs_total',
    help: 'App installations by outcome.',
    labels: ['outcome'],
  })
  return {
    accepted: (operation: string, deviceId: string, sagaId: string) => {
      operations.inc({ operation, outcome: 'accepted' })
      log.info({ event: `device.${operation}_accepted`, deviceId, sagaId })
    },
    done: (operation: string, deviceId: string) => {
      operations.inc({ operation, outcome: 'done' })
      log.info({ event: `device.${operation}_done`, deviceId })
    },
    failed: (operation: string, deviceId: string, reason: string) => {
      operations.inc({ operation, outcome: 'failed' })
      log.warn({ event: `device.${operation}_failed`, deviceId, reason })
    },
    repaired: (repair: string, deviceId: string, detail?: string) => {
      repairs.inc({ repair })
      log.warn({ event: `reconciler.${repair}`, deviceId, detail })
    },
    brake: (orphans: number, resources: number) => {
      repairs.inc({ repair: 'brake' })
      log.error({ event: 'reconciler.brake', orphans, resources })
    },
    providerLost: (error: unknown) => log.warn({ event: 'provider.unreachable', err: error }),
    holderSet: (deviceId: string, allocationId: string | null, fence: number) =>
      log.info({ event: 'device.holder_set', deviceId, allocationId, fence }),
    keysFailed: (deviceId: string, error: unknown) =>
      log.warn({ event: 'device.adb_keys_failed', deviceId, err: error }),
    quotaReleaseFailed: (deviceId: string, error: unknown) =>
      log.warn({ event: 'quota.release_failed', deviceId, err: error }),
    installed: (installationId: string) => {
      installs.inc({ outcome: 'completed' })
      log.info({ event: 'app.installed', installationId })
    },
    installFailed: (installationId: string, reason: string) => {
      installs.inc({ outcome: 'failed' })
      log.warn({ event: 'app.install_failed', installationId, reason })
    },
    watchFailed: (error: unknown) => log.error({ event: 'provider.watch_failed', err: error }),
  }
}
export type Telemetry = ReturnType<typeof openTelemetry>
