import type { Database, Tx } from '@cloudphone/db/database'
import { groupCommit } from '@cloudphone/db/group-commit'
import { writeCheckpoints } from './checkpoint.ts'
import { claimAny, claimFree, forgive, giveBack, nextDueInMs, readHeld, renew } from './claim.ts'
import type { SagaStore } from './store.ts'

/** Sagas in the tables of `migrations/`. */
export function postgresStore<Schema>(database: Database<Schema>): SagaStore<Tx<Schema>> {
  const db = database.kysely
  return {
    claimFree: (options) => claimFree(db, options),
    claimAny: (options) => claimAny(db, options),
    nextDueInMs: (known) => nextDueInMs(db, known),
    renew: (leases) => renew(db, leases),
    forgive: (executorIds) => forgive(db, executorIds),
    giveBack: (lease) => giveBack(db, lease),
    readHeld: (lease) => readHeld(db, lease),
    checkpoint: groupCommit((points) => writeCheckpoints(database.prepared, points)),
    checkpointIn: async (tx, point) => (await writeCheckpoints(tx, [point]))[0],
    transaction: (work) => database.transaction(work),
  }
}
