import { Readable } from 'node:stream'
import type { ApkInfo } from '@cloudphone/apk/apk'
import type { BlobDraft, BlobStore } from '@cloudphone/blobs/blob-store'
import { type Caller, may } from '@cloudphone/contracts/access'
import type { AppId, Ids, TenantId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import type { CrashPoints } from '@cloudphone/observe/crash-point'
import type { Audit } from '@cloudphone/runtime/audit-log'
import { common, ProblemError } from '@cloudphone/runtime/problem'
import { deleteApp, findApp, findAppByBytes, insertApp, listApps, lockApp } from '../db/app-repo.ts'
import { countLive } from '../db/installation-repo.ts'
import type { AppRow, AppsSchema } from '../db/schema.ts'
import { problems } from '../errors.ts'
import type { Telemetry } from '../telemetry.ts'
import { describeApk, limited } from './apk-upload.ts'
import { apkKey, discardBlobs, iconKey } from './app-blobs.ts'

export type { AppRow }

/** A blob on its way out. */
export interface Bytes {
  readonly body: Readable
  readonly sizeBytes: number
}

/** The store of a tenant's apps: APKs in the blob store, what they say of themselves in rows. */
export class AppService {
  readonly #database: Database<AppsSchema>
  readonly #blobs: BlobStore
  readonly #audit: Audit
  readonly #ids: Ids
  readonly #telemetry: Telemetry
  readonly #crash: CrashPoints
  readonly #maxApkBytes: number
  #lastDescription: Promise<unknown> = Promise.resolve()

  constructor(options: {
    database: Database<AppsSchema>
    blobs: BlobStore
    audit: Audit
    ids: Ids
    telemetry: Telemetry
    crash: CrashPoints
    maxApkBytes: number
  }) {
    this.#database = options.database
    this.#blobs = options.blobs
    this.#audit = options.audit
    this.#ids = options.ids
    this.#telemetry = options.telemetry
    this.#crash = options.crash
    this.#maxApkBytes = options.maxApkBytes
  }

  /**
   * Takes an APK in. The same bytes in the tenant again are the same app.
   * @throws ProblemError `apk_*`; nothing of the upload is left then.
   */
  async upload(caller: Caller, upload: { stream: Readable; truncated: () => boolean }): Promise<AppRow> {
    try {
      await using draft = await this.#blobs.draft(limited(upload.stream, this.#maxApkBytes))
      if (upload.truncated()) throw problems.apk_too_large({ limitBytes: this.#maxApkBytes })
      return await this.#keep(caller, draft)
    } catch (error) {
      if (error instanceof ProblemError && error.code.startsWith('apk_')) {
        this.#telemetry.uploadRefused(error.code, error.message)
      }
      throw error
    }
  }

  /** The caller's tenant's apps, newest first; one more than `limit`, to tell whether there is a next page. */
  async list(caller: Caller, query: { limit: number; before: string | undefined }): Promise<AppRow[]> {
    const { limit, before } = query
    return await listApps(this.#database.kysely, { tenantId: caller.tenantId, limit: limit + 1, before })
  }

  /** An app of the caller's tenant. @throws ProblemError `app_not_found`. */
  async get(caller: Caller, appId: AppId): Promise<AppRow> {
    const row = await findApp(this.#database.kysely, appId)
    if (row === undefined || row.tenant_id !== caller.tenantId) throw problems.app_not_found({ appId })
    return row
  }

  /** @throws ProblemError `app_not_found`, `icon_not_found`. */
  async icon(caller: Caller, appId: AppId): Promise<Bytes> {
    const { has_icon } = await this.get(caller, appId)
    const blob = has_icon ? await this.#blobs.open(iconKey(appId)) : undefined
    if (blob === undefined) throw problems.icon_not_found({ appId })
    return blob
  }

  /** The bytes, for the devices service. @throws ProblemError `app_not_found`, or `apk_lost` when they are gone. */
  async apk(appId: AppId): Promise<Bytes> {
    const row = await findApp(this.#database.kysely, appId)
    if (row === undefined) throw problems.app_not_found({ appId })
    const blob = await this.#blobs.open(apkKey(appId))
    if (blob === undefined) throw problems.apk_lost({ appId })
    return blob
  }

  /**
   * Deletes an app; its uploader may, and who holds `apps:any`. The row goes first: a blob without a row is swept, a row
   * without a blob would be a broken app.
   * @throws ProblemError `app_not_found`, `forbidden`, or `app_in_use` while it is being installed.
   */
  async delete(caller: Caller, appId: AppId): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const row = await lockApp(tx, appId)
      if (row === undefined || row.tenant_id !== caller.tenantId) throw problems.app_not_found({ appId })
      if (row.uploaded_by !== caller.userId && !may(caller, 'apps:any')) {
        throw common.forbidden({ permission: 'apps:any' })
      }
      const installations = await countLive(tx, appId)
      if (installations > 0) throw problems.app_in_use({ appId, installations })
      await deleteApp(tx, appId)
      const { tenantId } = caller
      await this.#audit.add(tx, { verb: 'app.delete', target: appId, tenantId, before: recorded(row) })
    })
    this.#telemetry.deleted(appId)
    await discardBlobs(this.#blobs, appId, this.#telemetry)
  }

  async #keep(caller: Caller, draft: BlobDraft): Promise<AppRow> {
    const key = { tenantId: caller.tenantId, sha256: draft.sha256 }
    const known = await findAppByBytes(this.#database.kysely, key)
    if (known !== undefined) return await this.#again(known, draft)
    const info = await this.#describe(draft.path)
    // The bytes before the row: whoever sees the app can have it. After a crash between them the sweep clears up, for
    // which the id tells when it was minted.
    const id = this.#ids.next<'app'>()
    const hasIcon = await this.#keepIcon(id, info)
    await draft.commit(apkKey(id))
    await this.#crash.reach('apps.blobs_kept')
    const row = await this.#insert({
      ...{ id, tenant_id: caller.tenantId, uploaded_by: caller.userId, has_icon: hasIcon },
      ...{ package_name: info.packageName, label: info.label, permissions: [...info.permissions] },
      ...{ version_code: info.versionCode, version_name: info.versionName },
      ...{ min_sdk: info.minSdk, target_sdk: info.targetSdk },
      ...{ size_bytes: draft.sizeBytes, sha256: draft.sha256 },
    })
    if (row === undefined) return await this.#loseRace(key, id)
    this.#telemetry.uploaded({
      appId: id,
      packageName: row.package_name,
      sizeBytes: row.size_bytes,
    })
    return row
  }

  async #insert(app: Parameters<typeof insertApp>[1]): Promise<AppRow | undefined> {
    return await this.#database.transaction(async (tx) => {
      const row = await insertApp(tx, app)
      if (row === undefined) return undefined
      const { id: target, tenant_id: tenantId } = row
      await this.#audit.add(tx, { verb: 'app.upload', target, tenantId, after: recorded(row) })
      return row
    })
  }

  /** One at a time: a hostile APK may make us hold a table of 96 MiB, and a hundred of them at once would be the end. */
  async #describe(path: string): Promise<ApkInfo> {
    const description = this.#lastDescription.then(() => describeApk(path))
    this.#lastDescription = description.catch(() => undefined) // thrown to its own caller, below
    return await description
  }

  /** The bytes are put in place again: that mends an app whose blob was lost, and does no harm to any other. */
  async #again(known: AppRow, draft: BlobDraft): Promise<AppRow> {
    await draft.commit(apkKey(known.id))
    this.#telemetry.uploadedAgain(known.id)
    this.#audit.nothingChanged()
    return known
  }

  /** Another upload of the same bytes was faster: its app is the one. */
  async #loseRace(key: { tenantId: TenantId; sha256: string }, own: AppId): Promise<AppRow> {
    await discardBlobs(this.#blobs, own, this.#telemetry)
    const winner = await findAppByBytes(this.#database.kysely, key)
    // Deleted again since: a coincidence of three, which the caller may simply repeat.
    if (winner === undefined) throw common.service_unavailable({ service: 'apps' })
    this.#telemetry.uploadedAgain(winner.id)
    this.#audit.nothingChanged()
    return winner
  }

  /** Keeps the icon when it is a PNG, as the contract promises; true then. */
  async #keepIcon(id: AppId, { icon }: ApkInfo): Promise<boolean> {
    if (icon?.mediaType !== 'image/png') return false
    await using draft = await this.#blobs.draft(Readable.from([icon.data]))
    await draft.commit(iconKey(id))
    return true
  }
}

/** What the audit log keeps of an app. */
function recorded({ package_name, label, version_code, version_name, size_bytes, sha256 }: AppRow) {
  return {
    ...{ packageName: package_name, label, versionCode: version_code, versionName: version_name },
    ...{ sizeBytes: size_bytes, sha256 },
  }
}
