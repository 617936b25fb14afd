/* What the engine relies on wherever sagas are kept. PostgreSQL answers to it, and so does the model of the simulation: what
 * is proved over the model is proved for what the engine meets. */
import { describe } from 'vitest'
import { checkpoints } from './contract/checkpoints.ts'
import { claims } from './contract/claims.ts'
import { deaths } from './contract/deaths.ts'
import { leases } from './contract/leases.ts'
import { refusals } from './contract/refusals.ts'
import type { Open } from './contract/support.ts'
import { timers } from './contract/timers.ts'
import { transactions } from './contract/transactions.ts'

export { CONTRACT_SAGA, type StoreHarness } from './contract/support.ts'

/** Registers what every store must do. */
export function storeContract<Transaction>(name: string, open: Open<Transaction>): void {
  describe(`${name}: claims`, () => claims(open))
  describe(`${name}: deaths`, () => deaths(open))
  describe(`${name}: checkpoints`, () => checkpoints(open))
  describe(`${name}: refused checkpoints`, () => refusals(open))
  describe(`${name}: transactions`, () => transactions(open))
  describe(`${name}: leases`, () => leases(open))
  describe(`${name}: timers and replies`, () => timers(open))
}
