import { type Caller, may } from '@cloudphone/contracts/access'
import { AppInstallRequested } from '@cloudphone/contracts/events/app-events'
import type { AppId, DeviceId, Ids, InstallationId } from '@cloudphone/contracts/id'
import { afterCommit, type Database, type Tx } from '@cloudphone/db/database'
import type { Outbox } from '@cloudphone/outbox/outbox'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { common } from '@cloudphone/runtime/problem'
import type { ServiceClient } from '@cloudphone/runtime/service-client'
import { keepApp } from '../db/app-repo.ts'
import * as repo from '../db/installation-repo.ts'
import type { AppRow, AppsSchema, InstallationRow } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Telemetry } from '../telemetry.ts'
import { accessRunning } from './device-access.ts'
import { isLive } from './installation.ts'

export type { AppsSchema, InstallationRow }

/** How many one turn of the watchdog ends at most; the next follows at once when there are more. */
const EXPIRY_BATCH = 200

/** Installations: asked for here, carried out by the devices service, ended here by what it says of them. */
export class InstallationService {
  readonly #database: Database<AppsSchema>
  readonly #outbox: Outbox
  readonly #audit: Audit
  readonly #client: ServiceClient
  readonly #ids: Ids
  readonly #telemetry: Telemetry
  readonly #wait: (id: string, timeoutMs: number) => Promise<void>
  readonly #tellEnded: () => void

  constructor(options: {
    database: Database<AppsSchema>
    outbox: Outbox
    audit: Audit
    client: ServiceClient
    ids: Ids
    telemetry: Telemetry
    /** Resolves when an installation has ended, or after the time. */
    wait: (id: string, timeoutMs: number) => Promise<void>
    /** Wakes those who wait, in every instance. */
    tellEnded: () => void
  }) {
    this.#database = options.database
    this.#outbox = options.outbox
    this.#audit = options.audit
    this.#client = options.client
    this.#ids = options.ids
    this.#telemetry = options.telemetry
    this.#wait = options.wait
    this.#tellEnded = options.tellEnded
  }

  /**
   * Asks for an app on a phone; emits app.install.requested. While an installation of the same app on the same phone
   * under the same right is live, that one is the answer.
   * @throws ProblemError of `accessRunning`, or `app_not_found` when the app was deleted meanwhile.
   */
  async install(
    caller: Caller,
    app: AppRow,
    { deviceId, requestKey }: { deviceId: DeviceId; requestKey: string },
  ): Promise<InstallationRow> {
    const { allocationId, fence } = await accessRunning(this.#client, caller, deviceId)
    const wanted: repo.NewInstallation = {
      ...{ id: this.#ids.next<'installation'>(), request_key: requestKey },
      ...{ tenant_id: caller.tenantId, user_id: caller.userId, device_id: deviceId },
      ...{ app_id: app.id, package_name: app.package_name, allocation_id: allocationId, fence },
    }
    // What is in the way may end between the insert and the look at it; then the way is free.
    for (;;) {
      const row = await this.#database.transaction((tx) => this.#insertOrFind(tx, app, wanted))
      if (row !== undefined) return row
    }
  }

  /**
   * One installation, at once or when it has ended, at the latest after `waitMs`.
   * @throws ProblemError `installation_not_found`, `forbidden`.
   */
  async get(caller: Caller, installationId: InstallationId, waitMs: number): Promise<InstallationRow> {
    const row = await this.#visible(caller, installationId)
    if (!isLive(row) || waitMs === 0) return row
    await this.#wait(installationId, waitMs)
    return await this.#visible(caller, installationId)
  }

  /** The caller's own, or with `apps:any` the tenant's, newest first; one more than `limit`. */
  async list(
    caller: Caller,
    query: { deviceId: DeviceId | undefined; limit: number; before: string | undefined },
  ): Promise<InstallationRow[]> {
    return await repo.listInstallations(this.#database.kysely, {
      ...query,
      limit: query.limit + 1,
      tenantId: caller.tenantId,
      userId: may(caller, 'apps:any') ? undefined : caller.userId,
    })
  }

  /** The devices service fetches the app for this installation. */
  async began(installationId: InstallationId, appId: AppId): Promise<void> {
    await repo.begin(this.#database.kysely, { id: installationId, appId })
  }

  /** The app is on the phone. */
  async completed(tx: Tx<AppsSchema>, id: InstallationId): Promise<void> {
    this.#report(tx, id, await repo.complete(tx, id))
  }

  /** It could not be installed. */
  async failed(tx: Tx<AppsSchema>, id: InstallationId, reason: string): Promise<void> {
    this.#report(tx, id, await repo.fail(tx, { id, reason }))
  }

  /** The phone is gone, and with it what was to be installed on it. */
  async deviceDeleted(tx: Tx<AppsSchema>, deviceId: DeviceId): Promise<void> {
    this.#reportAll(tx, await repo.failOfDevice(tx, { deviceId, reason: 'device deleted' }))
  }

  /** Fails what has been live for too long; returns how many. */
  async expire(minutes: number, signal: AbortSignal): Promise<number> {
    let count = 0
    while (!signal.aborted) {
      const rows = await this.#database.transaction(async (tx) => {
        const overdue = await repo.failOverdue(tx, { minutes, reason: 'timed out', limit: EXPIRY_BATCH })
        this.#reportAll(tx, overdue)
        return overdue
      })
      count += rows.length
      if (rows.length < EXPIRY_BATCH) break
    }
    return count
  }

  async #insertOrFind(
    tx: Tx<AppsSchema>,
    app: AppRow,
    wanted: repo.NewInstallation,
  ): Promise<InstallationRow | undefined> {
    if (!(await keepApp(tx, app.id))) throw problems.app_not_found({ appId: app.id })
    const row = await repo.insertInstallation(tx, wanted)
    if (row === undefined) {
      this.#audit.nothingChanged()
      return await repo.findFirst(tx, wanted)
    }
    await this.#outbox.add(tx, AppInstallRequested, {
      aggregateId: row.id,
      aggregateVersion: row.version,
      payload: {
        ...{ installationId: row.id, appId: row.app_id, deviceId: row.device_id, userId: row.user_id },
        ...{ packageName: row.package_name, allocationId: row.allocation_id, fence: row.fence },
        ...{ versionCode: app.version_code, sizeBytes: app.size_bytes, sha256: app.sha256 },
      },
    })
    await this.#audit.add(tx, {
      ...{ verb: 'app.install', target: row.id, tenantId: row.tenant_id },
      after: { appId: row.app_id, deviceId: row.device_id, packageName: row.package_name },
    })
    const ids = { installationId: row.id, appId: row.app_id, deviceId: row.device_id }
    afterCommit(tx, () => this.#telemetry.installRequested(ids))
    return row
  }

  async #visible(caller: Caller, installationId: InstallationId): Promise<InstallationRow> {
    const row = await repo.findInstallation(this.#database.kysely, installationId)
    if (row === undefined || row.tenant_id !== caller.tenantId) {
      throw problems.installation_not_found({ installationId })
    }
    if (row.user_id !== caller.userId && !may(caller, 'apps:any')) {
      throw common.forbidden({ permission: 'apps:any' })
    }
    return row
  }

  #report(tx: Tx<AppsSchema>, id: InstallationId, row: InstallationRow | undefined): void {
    if (row === undefined) afterCommit(tx, () => this.#telemetry.installEndedLate(id))
    else this.#reportAll(tx, [row])
  }

  #reportAll(tx: Tx<AppsSchema>, rows: readonly InstallationRow[]): void {
    if (rows.length === 0) return
    afterCommit(tx, () => {
      for (const { id, status, reason } of rows) {
        if (status === 'installed' || status === 'failed') {
          this.#telemetry.installEnded({ installationId: id, status, reason })
        }
      }
      this.#tellEnded()
    })
  }
}
