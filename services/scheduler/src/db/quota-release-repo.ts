import type { Kysely } from 'kysely'
import type { SchedulerSchema } from './schema.ts'

/** Notes that a session must be given back, whatever becomes of this process. */
export async function oweRelease(tx: Kysely<SchedulerSchema>, reservationId: string): Promise<void> {
  await tx
    .insertInto('quota_releases')
    .values({ reservation_id: reservationId })
    .onConflict((on) => on.column('reservation_id').doNothing())
    .execute()
}

export async function listOwed(db: Kysely<SchedulerSchema>, limit: number): Promise<string[]> {
  const rows = await db
    .selectFrom('quota_releases')
    .select('reservation_id')
    .orderBy('created_at')
    .limit(limit)
    .execute()
  return rows.map((row) => row.reservation_id)
}

export async function settleRelease(db: Kysely<SchedulerSchema>, reservationId: string): Promise<void> {
  await db.deleteFrom('quota_releases').where('reservation_id', '=', reservationId).execute()
}
