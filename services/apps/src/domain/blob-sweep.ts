import type { BlobStore } from '@cloudphone/blobs/blob-store'
import type { InvariantReport } from '@cloudphone/contracts/api/platform-api'
import { type AppId, timeOfId } from '@cloudphone/contracts/id'
import type { Database } from '@cloudphone/db/database'
import { databaseNow, existingApps, pageAppIds } from '../db/app-repo.ts'
import type { AppsSchema } from '../db/schema.ts'
import type { Telemetry } from '../telemetry.ts'
import { appOfKey, blobPrefix } from './app-blobs.ts'

const BATCH = 1_000

interface Stores {
  readonly database: Database<AppsSchema>
  readonly blobs: BlobStore
}

/** Deletes blobs that no row names and that are older than `orphanAfterMs`; an upload in hand is younger. */
export async function sweepOrphans(
  { database, blobs, telemetry }: Stores & { telemetry: Telemetry },
  { orphanAfterMs, signal }: { orphanAfterMs: number; signal: AbortSignal },
): Promise<number> {
  const bornBefore = (await databaseNow(database.kysely)).getTime() - orphanAfterMs
  let swept = 0
  const judge = async (batch: readonly { key: string; id: AppId }[]): Promise<void> => {
    const existing = await existingApps(
      database.kysely,
      batch.map(({ id }) => id),
    )
    for (const { key, id } of batch) {
      const born = timeOfId(id)
      if (existing.has(id) || born === undefined || born.getTime() > bornBefore || signal.aborted) continue
      await blobs.delete(key)
      telemetry.orphanSwept(key)
      swept += 1
    }
  }
  let batch: { key: string; id: AppId }[] = []
  for await (const key of blobs.list(blobPrefix)) {
    const owner = appOfKey(key)
    if (owner !== undefined) batch.push({ key, id: owner.id })
    if (batch.length < BATCH) continue
    await judge(batch)
    batch = []
  }
  await judge(batch)
  return swept
}

/** The apps whose bytes are gone, and how many apps were looked at. */
export async function findLost({ database, blobs }: Stores): Promise<{ apps: number; lost: AppId[] }> {
  // Before the listing: an app that is stored while we list may not be in it.
  const createdBefore = await databaseNow(database.kysely)
  const stored = new Set<string>()
  for await (const key of blobs.list(blobPrefix)) {
    const owner = appOfKey(key)
    if (owner?.kind === 'apk') stored.add(owner.id)
  }
  const lost: AppId[] = []
  let apps = 0
  for (let after: AppId | undefined; ; ) {
    const ids = await pageAppIds(database.kysely, { after, limit: BATCH, createdBefore })
    apps += ids.length
    lost.push(...ids.filter((id) => !stored.has(id)))
    after = ids.at(-1)
    if (ids.length < BATCH || after === undefined) return { apps, lost }
  }
}

/** What this service can say for the doctor: that no app has outlived its bytes. */
export async function judgeInvariants(stores: Stores): Promise<InvariantReport[]> {
  const { apps, lost } = await findLost(stores)
  return [
    {
      invariant: 9,
      name: 'Every app still has its bytes',
      figure: `${apps} apps`,
      holds: lost.length === 0,
      culprits: lost.slice(0, 100).map((id) => ({ id, detail: 'no APK in the blob store' })),
    },
  ]
}
