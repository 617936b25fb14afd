import type { Claim, InvariantReport } from '@cloudphone/contracts/api/platform-api'
import type { Database } from '@cloudphone/db/database'
import { compareCounters, listLiveReservations } from '../db/reservation-repo.ts'
import type { UsersSchema } from '../db/schema.ts'

/**
 * What the users service knows for the doctor: whether its counters are the sums of its reservations (invariant 3), and
 * each live reservation as a claim: of kind `quota` by device id, for the join with what the devices service holds, and of
 * kind `session` by reservation id, for the join with the scheduler's allocations.
 */
export async function judgeInvariants(
  database: Database<UsersSchema>,
): Promise<{ reports: InvariantReport[]; claims: Claim[] }> {
  const [counters, claims] = await Promise.all([compareCounters(database.kysely), quotaClaims(database)])
  return {
    reports: [
      {
        invariant: 3,
        name: 'Quota used = sum of live reservations',
        figure: `${counters.users} users of ${counters.tenants} tenants, ${counters.reservations} reservations`,
        holds: counters.wrong.length === 0,
        culprits: counters.wrong.map(({ whose, id, counted, held }) => ({
          id,
          detail: `${whose}: counted ${counted}, reserved ${held} (devices/cpu/memory/storage/sessions)`,
        })),
      },
    ],
    claims,
  }
}

async function quotaClaims(database: Database<UsersSchema>): Promise<Claim[]> {
  const limit = 5_000
  const claims: Claim[] = []
  for (let beforeId: string | undefined; ; ) {
    const rows = await listLiveReservations(database.kysely, { beforeId, limit })
    const page = rows.slice(0, limit)
    claims.push(
      ...page.map(({ reservationId, state, sessions }) => ({
        kind: sessions > 0 ? 'session' : 'quota',
        id: reservationId,
        detail: state,
      })),
    )
    if (rows.length <= limit) return claims
    beforeId = page.at(-1)?.reservationId
  }
}
