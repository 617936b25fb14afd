import type { Logger } from '@cloudphone/observe/log'
import type { Metrics } from '@cloudphone/observe/metrics'

/** What this service reports, each fact once: a log line and a counter. */
export interface Telemetry {
  uploaded(app: { appId: string; packageName: string; sizeBytes: number }): void
  /** The same bytes came again. */
  uploadedAgain(appId: string): void
  uploadRefused(code: string, reason: string): void
  deleted(appId: string): void
  installRequested(ids: { installationId: string; appId: string; deviceId: string }): void
  installEnded(end: { installationId: string; status: 'installed' | 'failed'; reason: string | null }): void
  /** An end came for an installation that had ended before, such as after a time-out. */
  installEndedLate(installationId: string): void
  orphanSwept(key: string): void
  /** Apps whose bytes are gone, of all there are. */
  blobsCompared(lostAppIds: readonly string[]): void
  blobNotDeleted(key: string, error: unknown): void
  watchFailed(error: unknown): void
}

/** `waiting` is asked at each scrape: how many installations are waited for here. */
export function openTelemetry(
  log: Logger,
  metrics: Metrics,
  { waiting }: { waiting: () => number },
): Telemetry {
  metrics.gauge({
    name: 'apps_waiting',
    help: 'Installations whose end somebody waits for at this instance.',
    collect: (gauge) => gauge.set(waiting()),
  })
  const uploads = metrics.counter({
    name: 'apps_uploads_total',
    help: 'APK uploads by outcome: stored, known, or the code of the refusal.',
    labels: ['outcome'],
  })
  const requested = metrics.counter({
    name: 'apps_installs_requested_total',
    help: 'Installations asked for.',
  })
  const ended = metrics.counter({
    name: 'apps_installs_ended_total',
    help: 'Installations that have ended.',
    labels: ['status'],
  })
  const late = metrics.counter({
    name: 'apps_installs_ended_late_total',
    help: 'Ends of installations that had ended before.',
  })
  const swept = metrics.counter({
    name: 'apps_orphan_blobs_swept_total',
    help: 'Blobs without a row, deleted.',
  })
  const lost = metrics.gauge({
    name: 'apps_lost_blobs',
    help: 'Apps whose APK is gone, at the last comparison.',
  })
  return {
    uploaded: (app) => {
      uploads.inc({ outcome: 'stored' })
      log.info({ event: 'app.uploaded', ...app })
    },
    uploadedAgain: (appId) => {
      uploads.inc({ outcome: 'known' })
      log.info({ event: 'app.uploaded_again', appId })
    },
    uploadRefused: (code, reason) => {
      uploads.inc({ outcome: code })
      log.info({ event: 'app.upload_refused', code, reason })
    },
    deleted: (appId) => log.info({ event: 'app.deleted', appId }),
    installRequested: (ids) => {
      requested.inc()
      log.info({ event: 'installation.requested', ...ids })
    },
    installEnded: (end) => {
      ended.inc({ status: end.status })
      log.info({ event: 'installation.ended', ...end })
    },
    installEndedLate: (installationId) => {
      late.inc()
      log.warn({ event: 'installation.ended_late', installationId })
    },
    orphanSwept: (key) => {
      swept.inc()
      log.info({ event: 'blob.orphan_swept', key })
    },
    blobsCompared: (lostAppIds) => {
      lost.set(lostAppIds.length)
      if (lostAppIds.length > 0) log.error({ event: 'blob.lost', appIds: lostAppIds.slice(0, 100) })
    },
    blobNotDeleted: (key, error) => log.warn({ event: 'blob.not_deleted', key, err: error }),
    watchFailed: (error) => log.warn({ event: 'installation.watch_failed', err: error }),
  }
}
