import type { Claim, InvariantReport } from '@cloudphone/contracts/api/platform-api'
import type { Database } from '@cloudphone/db/database'
import { compareHoldings } from '../db/allocation-repo.ts'
import type { SchedulerSchema } from '../db/schema.ts'

/**
 * What the scheduler knows for the doctor: that no phone is held twice and that leases and allocations agree
 * (invariant 4), and each ACTIVE allocation as a claim by device id, for the join with what the devices service
 * holds, and each live one's session as a claim by reservation id, for the join with the users service's reservations.
 */
export async function judgeInvariants(
  database: Database<SchedulerSchema>,
): Promise<{ reports: InvariantReport[]; claims: Claim[] }> {
  // One snapshot: between two statements a phone may change hands.
  const facts = await database.transaction((tx) => compareHoldings(tx), { isolation: 'repeatable read' })
  return {
    reports: [
      {
        invariant: 4,
        name: 'A phone has at most one live allocation',
        figure: `${facts.live} live allocations`,
        holds: facts.twice.length === 0,
        culprits: facts.twice.map(({ deviceId, count }) => ({ id: deviceId, detail: `held ${count} times` })),
      },
      {
        invariant: 4,
        name: 'A phone is leased exactly while an allocation holds it',
        figure: `${facts.live} live allocations`,
        holds: facts.adrift.length === 0,
        culprits: facts.adrift.map(({ deviceId, availability, allocationId }) => ({
          id: deviceId,
          detail: `${availability}, held by ${allocationId ?? 'nobody'}`,
        })),
      },
    ],
    claims: [
      ...facts.active.map(({ id, deviceId }) => ({ kind: 'allocation', id: deviceId, detail: id })),
      ...facts.sessions.map(({ reservationId, status }) => ({
        ...{ kind: 'session', id: reservationId, detail: status },
      })),
    ],
  }
}
