import { executorKey, liveExecutorKeys } from '@cloudphone/db/executor'
import { type QueryExecutorProvider, sql } from 'kysely'

/* A relay holds lanes while it is alive, and it is alive while its executor's lock is held and its heartbeat is young: one
 * row to renew instead of sixteen. Liveness is measured by real time, not by app_now(), which a test may move. */

export const LANES = 16

/** A lane that this relay holds, under the epoch of its taking. */
export interface HeldLane {
  readonly lane: number
  readonly epoch: number
}

export interface LaneClaim {
  /** The executor id of the relay. */
  readonly owner: string
  readonly ttlMs: number
  /** Lanes above the fair share are given back only between batches, or rows in flight would be sent twice. */
  readonly surplus: 'keep' | 'give back'
}

export interface LanesAnswer {
  readonly lanes: readonly HeldLane[]
  /** 16 over the relays alive, rounded up. */
  readonly share: number
}

/**
 * Renews the relay's heartbeat, gives back lanes above its fair share if asked to, and takes free ones up to it. A lane
 * is free when it was given back or its relay is dead: its executor's lock gone, or its heartbeat too old.
 */
export async function holdLanes(
  db: QueryExecutorProvider,
  { owner, ttlMs, surplus }: LaneClaim,
): Promise<LanesAnswer> {
  const { rows } = await sql<HeldLane & { share: number }>`
    with keys as materialized (select key from ${liveExecutorKeys()} as all_keys),
    beat as (
      insert into outbox_relay (owner, expires_at)
      values (${owner}, clock_timestamp() /* real time */ + ${ttlMs}::float8 * interval '1 millisecond')
      on conflict (owner) do update set expires_at = excluded.expires_at
    ),
    live as materialized (
      select owner from outbox_relay
      where expires_at > clock_timestamp() /* real time */
        and ${executorKey(sql<string>`owner`)} in (select key from keys)
      union select ${owner}
    ),
    share as (select ceil(${LANES}::float8 / count(*))::integer as lanes from live),
    mine as (select lane, epoch from outbox_lane where owner = ${owner}),
    surplus as (
      update outbox_lane set owner = null
      where owner = ${owner} and ${surplus}::text = 'give back' and lane in (
        select lane from mine order by lane desc
        limit greatest(0, (select count(*) from mine) - (select lanes from share)))
      returning lane
    ),
    taken as (
      update outbox_lane set owner = ${owner}, epoch = epoch + 1
      where lane in (
        select lane from outbox_lane
        where owner is null or owner not in (select owner from live)
        order by lane
        limit greatest(0, (select lanes from share) - (select count(*) from mine))
        for update skip locked)
      returning lane, epoch
    ),
    gone as (delete from outbox_relay where owner not in (select owner from live)),
    held as (
      select lane, epoch from mine where lane not in (select lane from surplus)
      union all select lane, epoch from taken
    )
    select share.lanes as share, held.lane, held.epoch from share left join held on true order by held.lane`.execute(
    db,
  )
  const lanes = rows.filter(({ lane }) => lane !== null).map(({ lane, epoch }) => ({ lane, epoch }))
  return { lanes, share: rows[0]?.share ?? LANES }
}

/** Gives all lanes of a relay back and forgets it. */
export async function giveBackLanes(db: QueryExecutorProvider, owner: string): Promise<void> {
  await sql`
    with gone as (delete from outbox_relay where owner = ${owner})
    update outbox_lane set owner = null where owner = ${owner}`.execute(db)
}
