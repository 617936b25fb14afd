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
  const answers = metrics.counter({
    name: 'devices_quota_cache_answers_total',
    help: 'Answers about quota by where they came from: cache, users service, or an expired entry while that is away.',
    labels: ['source'],
  })
  const grants = metrics.counter({
    name: 'devices_quota_grants_total',
    help: 'Phones made while the users service did not answer: postponed, then settled, or refused when it answered.',
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
    quotaAnswered: (source: string) => answers.inc({ source }),
    quotaReadFailed: (userId: string, error: unknown) =>
      log.warn({ event: 'quota.read_failed', userId, err: error }),
    quotaPostponed: (deviceId: string, userId: string) => {
      grants.inc({ outcome: 'postponed' })
      log.warn({ event: 'quota.postponed', deviceId, userId })
    },
    quotaSettled: (deviceId: string, userId: string) => {
      grants.inc({ outcome: 'settled' })
      log.info({ event: 'quota.settled', deviceId, userId })
    },
    quotaUnsettled: (deviceId: string, userId: string, error: unknown) => {
      grants.inc({ outcome: 'refused' })
      log.error({ event: 'quota.settlement_refused', deviceId, userId, err: error })
    },
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
    visitsUnseen: (error: unknown) => log.warn({ event: 'visits.look_failed', err: error }),
    watchFailed: (error: unknown) => log.error({ event: 'provider.watch_failed', err: error }),
  }
}
/** Shows at each scrape how the quota cache does and how many phones wait to be settled. */
export function showQuota(
  metrics: Metrics,
  quota: { hitRate: () => number; unsettled: () => Promise<number> },
): void {
  metrics.gauge({
    name: 'devices_quota_cache_hit_ratio',
    help: 'Answers about quota that the cache gave by itself, of all since the start, 0 to 1.',
    collect: (gauge) => gauge.set(quota.hitRate()),
  })
  metrics.gauge({
    name: 'devices_quota_unsettled',
    help: 'Phones made while the users service did not answer whose quota is not settled yet.',
    collect: async (gauge) => gauge.set(await quota.unsettled()),
  })
}
export type Telemetry = ReturnType<typeof openTelemetry>
