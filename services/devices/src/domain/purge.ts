import { purgeTombstones } from '../db/device-repo.ts'
import { purgePortHolds } from '../db/port-repo.ts'
import type { Deps } from './deps.ts'

/** Deletes tombstones after 30 days, and port holds that have ended. */
export async function purgeRemains({ database }: Deps): Promise<void> {
  await database.transaction(async (tx) => {
    await purgeTombstones(tx)
    await purgePortHolds(tx)
  })
}
