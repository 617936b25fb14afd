import type { Claim, InvariantReport } from '@cloudphone/contracts/api/platform-api'
import type { Database } from '@cloudphone/db/database'
import type { BillingSchema } from '../db/schema.ts'
import { auditBooks } from '../db/usage-repo.ts'

/**
 * What billing knows for the doctor: that each closed record costs what it should and that no moment of a phone is
 * counted twice (invariant 7), and each running meter as a claim by device id, for the join with the phones that run.
 */
export async function judgeInvariants(
  database: Database<BillingSchema>,
): Promise<{ reports: InvariantReport[]; claims: Claim[] }> {
  const facts = await database.transaction((tx) => auditBooks(tx), { isolation: 'repeatable read' })
  const figure = `${facts.closed} closed records, ${facts.open.length} open`
  return {
    reports: [
      {
        ...{ invariant: 7, name: 'Usage costs its seconds at the price of its start', figure },
        holds: facts.wrong.length === 0,
        culprits: facts.wrong.map(({ id, cost }) => ({ id, detail: `costs ${cost} micro-units` })),
      },
      {
        ...{ invariant: 7, name: 'No moment of a phone is counted twice', figure },
        holds: facts.overlapping.length === 0,
        culprits: facts.overlapping.map(({ id, other }) => ({ id, detail: `overlaps ${other}` })),
      },
    ],
    claims: facts.open.map(({ id, deviceId }) => ({ kind: 'meter', id: deviceId, detail: id })),
  }
}
