import type { Database, Tx } from '@cloudphone/db/database'
import { checkpoint } from './checkpoint.ts'
import { claimAny, claimFree, giveBack, nextDueInMs, readHeld, renew } from './claim.ts'
import type { SagaStore } from './store.ts'

/** Sagas in the tables of `migrations/`. */
export function postgresStore<Schema>(database: Database<Schema>): SagaStore<Tx<Schema>> {
  const db = database.kysely
  return {
    claimFree: (options) => claimFree(db, options),
    claimAny: (options) => claimAny(db, options),
    nextDueInMs: (known) => nextDueInMs(db, known),
    renew: (leases) => renew(db, leases),
    giveBack: (lease) => giveBack(db, lease),
    readHeld: (lease) => readHeld(db, lease),
    checkpoint: (point) => checkpoint(db, point),
    checkpointIn: (tx, point) => checkpoint(tx, point),
    transaction: (work) => database.transaction(work),
  }
}
