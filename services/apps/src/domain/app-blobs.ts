import type { BlobStore } from '@cloudphone/blobs/blob-store'
import type { AppId } from '@cloudphone/contracts/id'
import type { Telemetry } from '../telemetry.ts'

/** Where blobs of apps lie; nothing else may lie there. */
export const blobPrefix = 'apps/'

export const apkKey = (id: AppId): string => `${blobPrefix}${id}.apk`
export const iconKey = (id: AppId): string => `${blobPrefix}${id}.icon.png`

/** The app that a blob belongs to; undefined for a key that is not one of ours. */
export function appOfKey(key: string): { id: AppId; kind: 'apk' | 'icon' } | undefined {
  const [, id, ending] =
    /^apps\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(apk|icon\.png)$/.exec(key) ?? []
  return id === undefined ? undefined : { id: id as AppId, kind: ending === 'apk' ? 'apk' : 'icon' }
}

/** Deletes the blobs of an app that has no row. What cannot be deleted now is left to the sweep. */
export async function discardBlobs(blobs: BlobStore, id: AppId, telemetry: Telemetry): Promise<void> {
  for (const key of [iconKey(id), apkKey(id)]) {
    await blobs.delete(key).catch((error: unknown) => telemetry.blobNotDeleted(key, error))
  }
}
