import { purgeTombstones } from '../db/device-repo.ts'
import { purgePortHolds } from '../db/port-repo.ts'
import { purgeWipes } from '../db/wipe-repo.ts'
import type { Deps } from './deps.ts'

/** Deletes tombstones after 30 days, proofs of wipes after a year, and port holds that have ended. */
export async function purgeRemains({ database }: Deps): Promise<void> {
  await database.transaction(async (tx) => {
    await purgeTombstones(tx)
    await purgePortHolds(tx)
    await purgeWipes(tx)
  })
}
