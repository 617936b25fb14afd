import { executorKey, liveExecutorKeys } from '@cloudphone/db/executor'
import { type QueryExecutorProvider, sql } from 'kysely'
import { QUARANTINE_DEATHS } from './decide.ts'
import { type RawRow, ROW_COLUMNS, readRow, type SagaRow } from './row.ts'
import type { ClaimOptions } from './store.ts'

/** From this many deaths on, a saga runs without another suspect beside it, so that it takes no bystander along. */
export const SUSPECT_DEATHS = 2
/** Decision 11: a death counts when it came so soon after the effect began. */
const FATAL_WITHIN_MS = 10_000

/** Claims due sagas that nobody holds: the quick way, for wake-ups. */
export async function claimFree(db: QueryExecutorProvider, options: ClaimOptions): Promise<SagaRow[]> {
  return claimWhere(db, options, {
    claimable: sql<boolean>`c.lease_owner is null`,
    death: sql<boolean>`false`,
  })
}

/**
 * Claims due sagas that nobody holds, and those whose holder let its lease run out or whose process is gone: then the
 * advisory lock of its executor id is free. Never by who held them, and not only at launch: every process sweeps.
 */
export async function claimAny(db: QueryExecutorProvider, options: ClaimOptions): Promise<SagaRow[]> {
  const gone = sql<boolean>`(c.lease_owner is not null and ${executorKey(sql<string>`c.lease_owner`)} not in (select key from live))`
  // The last renewal is the last proof of life; up to a third of a lease passed before the next one was missed.
  const lastAlive = sql`c.lease_until - ${options.leaseTtlMs} * interval '1 millisecond'`
  const fatalMs = Math.max(1_000, FATAL_WITHIN_MS - options.leaseTtlMs / 3)
  return claimWhere(db, options, {
    claimable: sql<boolean>`(c.lease_owner is null or c.lease_until < clock_timestamp() or ${gone}) /* real time: a lease */`,
    death: sql<boolean>`(${gone} and c.lease_owner <> all(${options.formerIds}::text[])
      and ${lastAlive} <= c.begun_at + ${fatalMs} * interval '1 millisecond'
      and pg_postmaster_start_time() < c.begun_at)`,
  })
}

async function claimWhere(
  db: QueryExecutorProvider,
  { executorId, known, limit, suspects, leaseTtlMs }: ClaimOptions,
  {
    claimable,
    death,
  }: { claimable: ReturnType<typeof sql<boolean>>; death: ReturnType<typeof sql<boolean>> },
): Promise<SagaRow[]> {
  const due = sql`c.status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK') and c.next_run_at <= app_now()
    and c.saga_type || ':' || c.def_version = any(${known}::text[]) and ${claimable}`
  const { rows } = await sql<RawRow>`
    with live as materialized (select l.key from ${liveExecutorKeys()} as l),
    healthy as (
      select c.saga_id, ${death} as died from saga_state c
      where ${due} and c.deaths < ${sql.lit(SUSPECT_DEATHS)}
      order by c.next_run_at limit ${limit} for update of c skip locked
    ), suspect as (
      select c.saga_id, ${death} as died from saga_state c
      where ${due} and c.deaths >= ${sql.lit(SUSPECT_DEATHS)}
      order by c.next_run_at limit ${suspects} for update of c skip locked
    ), claimed as (select * from healthy union all select * from suspect),
    s as (
      update saga_state t set
        fence = t.fence + 1, lease_owner = ${executorId},
        lease_until = clock_timestamp() + ${leaseTtlMs} * interval '1 millisecond', -- real time: a lease
        begun_at = clock_timestamp(), -- real time: a lease
        deaths = t.deaths + case when claimed.died then 1 else 0 end,
        dead_executors = case when claimed.died then array_append(t.dead_executors, t.lease_owner)
          else t.dead_executors end,
        started_at = coalesce(t.started_at, app_now())
      from claimed where t.saga_id = claimed.saga_id
      returning t.*
    )
    select ${ROW_COLUMNS} from s order by s.next_run_at`.execute(db)
  return rows.map(readRow)
}

/** Takes back the deaths that others have counted under these ids: the process behind them lives. */
export async function forgive(db: QueryExecutorProvider, executorIds: readonly string[]): Promise<void> {
  await sql`
    update saga_state t set
      deaths = greatest(0, t.deaths
        - (select count(*) from unnest(t.dead_executors) d where d = any(${executorIds}::text[]))),
      dead_executors = array(select d from unnest(t.dead_executors) d where d <> all(${executorIds}::text[]))
    where t.status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK')
      and t.deaths > 0 and t.dead_executors && ${executorIds}::text[]`.execute(db)
}

/** Whether a claimed saga has killed too many executors to be tried again. */
export function isPoisoned(row: SagaRow): boolean {
  return row.deaths >= QUARANTINE_DEATHS
}

/** Milliseconds until the next saga that nobody holds is due; null when there is none. */
export async function nextDueInMs(
  db: QueryExecutorProvider,
  known: readonly string[],
): Promise<number | null> {
  const { rows } = await sql<{ due_in_ms: number | null }>`
    select (extract(epoch from min(c.next_run_at) - app_now()) * 1000)::float8 as due_in_ms
    from saga_state c
    where c.status in ('RUNNING', 'COMPENSATING', 'COMPENSATION_STUCK') and c.next_run_at > app_now()
      and c.lease_owner is null and c.saga_type || ':' || c.def_version = any(${known}::text[])`.execute(db)
  return rows[0]?.due_in_ms ?? null
}

/** Renews leases; returns the fences that are still ours. Rows locked by a checkpoint are left to it. */
export async function renew(
  db: QueryExecutorProvider,
  { executorId, sagaIds, leaseTtlMs }: { executorId: string; sagaIds: readonly string[]; leaseTtlMs: number },
): Promise<Map<string, number>> {
  const { rows } = await sql<{ saga_id: string; fence: number }>`
    update saga_state t
    set lease_until = clock_timestamp() + ${leaseTtlMs} * interval '1 millisecond' -- real time: a lease
    from (
      select c.saga_id from saga_state c
      where c.saga_id = any(${sagaIds}::text[]) and c.lease_owner = ${executorId}
      order by c.saga_id for update skip locked
    ) held
    where t.saga_id = held.saga_id
    returning t.saga_id, t.fence`.execute(db)
  return new Map(rows.map(({ saga_id, fence }) => [saga_id, fence]))
}

/** Gives a lease back, to be claimed by anyone after `delayMs`. Nothing happens when it is no longer ours. */
export async function giveBack(
  db: QueryExecutorProvider,
  { sagaId, fence, delayMs }: { sagaId: string; fence: number; delayMs: number },
): Promise<void> {
  await sql`
    update saga_state set lease_owner = null, lease_until = null,
      next_run_at = case when ${delayMs}::float8 = 0 then next_run_at
        else app_now() + ${delayMs} * interval '1 millisecond' end
    where saga_id = ${sagaId} and fence = ${fence} and lease_owner is not null`.execute(db)
}

/** The saga as it stands, if this fence still holds it: after a write whose fate is unknown or was refused. */
export async function readHeld(
  db: QueryExecutorProvider,
  { sagaId, fence, executorId }: { sagaId: string; fence: number; executorId: string },
): Promise<SagaRow | undefined> {
  const { rows } = await sql<RawRow>`
    select ${ROW_COLUMNS} from saga_state s
    where s.saga_id = ${sagaId} and s.fence = ${fence} and s.lease_owner = ${executorId}`.execute(db)
  return rows[0] && readRow(rows[0])
}
