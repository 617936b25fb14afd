import { executorKey, liveExecutorKeys } from '@cloudphone/db/executor'
import { type QueryExecutorProvider, sql } from 'kysely'

/* Leases measure the liveness of processes, so their SQL reads the server's real time: a test that moves app_now() by an
 * hour must not make every holder look dead. */

export interface LeaseClaim {
  readonly name: string
  readonly ttlMs: number
}

export interface LeaseGrant {
  readonly name: string
  readonly epoch: number
}

/**
 * Takes those of the named leases that nobody holds: never taken, given back, expired, or their holder's executor gone.
 * Returns what was taken, each under an epoch one higher than its last.
 */
export async function takeLeases(
  db: QueryExecutorProvider,
  holder: string,
  claims: readonly LeaseClaim[],
): Promise<readonly LeaseGrant[]> {
  // Sorted, so that two processes lock rows in the same order.
  const wanted = claims.toSorted((one, other) => (one.name < other.name ? -1 : 1))
  const { rows } = await sql<LeaseGrant>`
    with live as materialized (select key from ${liveExecutorKeys()} as keys)
    insert into lease as held (name, holder, epoch, expires_at)
    select wanted.name, ${holder}, 1, clock_timestamp() /* real time */ + wanted.ttl_ms * interval '1 millisecond'
    from unnest(${wanted.map(({ name }) => name)}::text[], ${wanted.map(({ ttlMs }) => ttlMs)}::float8[])
      as wanted (name, ttl_ms)
    on conflict (name) do update
      set holder = excluded.holder, epoch = held.epoch + 1, expires_at = excluded.expires_at
      where held.holder is null
        or held.expires_at < clock_timestamp() /* real time */
        or ${executorKey(sql<string>`held.holder`)} not in (select key from live)
    returning name, epoch`.execute(db)
  return rows
}

/** Prolongs held leases; returns the names of those that were still ours. */
export async function renewLeases(
  db: QueryExecutorProvider,
  holder: string,
  grants: readonly (LeaseGrant & LeaseClaim)[],
): Promise<ReadonlySet<string>> {
  const held = grants.toSorted((one, other) => (one.name < other.name ? -1 : 1))
  const { rows } = await sql<{ name: string }>`
    update lease
    set expires_at = clock_timestamp() /* real time */ + held.ttl_ms * interval '1 millisecond'
    from unnest(${held.map(({ name }) => name)}::text[], ${held.map(({ epoch }) => epoch)}::bigint[],
      ${held.map(({ ttlMs }) => ttlMs)}::float8[]) as held (name, epoch, ttl_ms)
    where lease.name = held.name and lease.epoch = held.epoch and lease.holder = ${holder}
    returning lease.name`.execute(db)
  return new Set(rows.map(({ name }) => name))
}

/** Gives leases back, so that others need not wait for them to expire. */
export async function giveBackLeases(
  db: QueryExecutorProvider,
  holder: string,
  grants: readonly LeaseGrant[],
): Promise<void> {
  await sql`
    update lease set holder = null
    from unnest(${grants.map(({ name }) => name)}::text[], ${grants.map(({ epoch }) => epoch)}::bigint[])
      as held (name, epoch)
    where lease.name = held.name and lease.epoch = held.epoch and lease.holder = ${holder}`.execute(db)
}

/**
 * SQL for a guarded write: true while the lease is under this epoch. `... where ${underEpoch(lease)} and ...` refuses the
 * write of a holder that was replaced meanwhile. The row is locked until the caller's commit, so that the lease cannot
 * change hands between the check and the write.
 */
export function underEpoch(lease: LeaseGrant) {
  return sql<boolean>`exists (
    select from lease where name = ${lease.name} and epoch = ${lease.epoch} and holder is not null for share)`
}
