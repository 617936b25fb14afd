import type { UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { Portion, Quota, QuotaLimits, Reservation } from '../domain/quota.ts'
import type { UsersSchema } from './schema.ts'

/** The whole quota of a user, with `defaults` for limits never set; undefined for an unknown user. */
export async function findQuota(
  db: Kysely<UsersSchema>,
  userId: UserId,
  defaults: QuotaLimits,
): Promise<Quota | undefined> {
  const row = await db.selectFrom('quotas').selectAll().where('user_id', '=', userId).executeTakeFirst()
  return (
    row && {
      userId,
      limits: {
        maxDevices: row.max_devices ?? defaults.maxDevices,
        maxCpu: row.max_cpu ?? defaults.maxCpu,
        maxMemory: row.max_memory ?? defaults.maxMemory,
        maxStorage: row.max_storage ?? defaults.maxStorage,
      },
      used: { devices: row.devices, cpu: row.cpu, memory: row.memory, storage: row.storage },
    }
  )
}

/** Sets a user's own limits. They may lie below what is used: then nothing more is reserved until enough is released. */
export async function updateLimits(
  db: Kysely<UsersSchema>,
  userId: UserId,
  limits: QuotaLimits,
): Promise<void> {
  await db
    .updateTable('quotas')
    .set({
      max_devices: limits.maxDevices,
      max_cpu: limits.maxCpu,
      max_memory: limits.maxMemory,
      max_storage: limits.maxStorage,
      updated_at: sql<Date>`now() /* audit */`,
    })
    .where('user_id', '=', userId)
    .execute()
}

/** Writes a reservation under a new id; false when the id is known, whatever became of it. */
export async function insertReservation(
  tx: Kysely<UsersSchema>,
  reservation: Portion & { reservationId: string; userId: UserId; ttlSeconds: number },
): Promise<boolean> {
  const inserted = await sql`
    insert into quota_reservations (reservation_id, user_id, state, cpu, memory, storage, expires_at)
    values (${reservation.reservationId}, ${reservation.userId}, 'reserved', ${reservation.cpu},
            ${reservation.memory}, ${reservation.storage},
            app_now() + make_interval(secs => ${reservation.ttlSeconds}))
    on conflict (reservation_id) do nothing`.execute(tx)
  return inserted.numAffectedRows === 1n
}

/**
 * Takes a phone's portion of a user's quota if all of it fits and the user is active. One statement under the row's
 * lock: of two that ask for the last phone at once, the second is decided by what the first left.
 */
export async function takePortion(
  tx: Kysely<UsersSchema>,
  { userId, portion, defaults }: { userId: UserId; portion: Portion; defaults: QuotaLimits },
): Promise<boolean> {
  const taken = await sql`
    update quotas
    set devices = devices + 1, cpu = cpu + ${portion.cpu}, memory = memory + ${portion.memory},
        storage = storage + ${portion.storage}, updated_at = now() -- audit
    where user_id = ${userId}
      and devices + 1 <= coalesce(max_devices, ${defaults.maxDevices}::int)
      and (${portion.cpu}::int = 0 or cpu + ${portion.cpu} <= coalesce(max_cpu, ${defaults.maxCpu}::int))
      and (${portion.memory}::int = 0
           or memory + ${portion.memory} <= coalesce(max_memory, ${defaults.maxMemory}::int))
      and (${portion.storage}::int = 0
           or storage + ${portion.storage} <= coalesce(max_storage, ${defaults.maxStorage}::int))
      and exists (
        select from users join tenants on tenants.id = users.tenant_id
        where users.id = quotas.user_id and users.status = 'active' and tenants.status = 'active'
      )`.execute(tx)
  return taken.numAffectedRows === 1n
}

/** Gives a phone's portion back. */
export async function givePortion(tx: Kysely<UsersSchema>, userId: UserId, portion: Portion): Promise<void> {
  await sql`
    update quotas
    set devices = devices - 1, cpu = cpu - ${portion.cpu}, memory = memory - ${portion.memory},
        storage = storage - ${portion.storage}, updated_at = now() -- audit
    where user_id = ${userId}`.execute(tx)
}

/** Whatever became of a reservation; undefined for an unknown id. */
export async function findReservation(
  db: Kysely<UsersSchema>,
  reservationId: string,
): Promise<(Portion & { userId: UserId | null; state: 'reserved' | 'committed' | 'released' }) | undefined> {
  const row = await db
    .selectFrom('quota_reservations')
    .select(['user_id', 'state', 'cpu', 'memory', 'storage'])
    .where('reservation_id', '=', reservationId)
    .executeTakeFirst()
  return (
    row && {
      userId: row.user_id,
      state: row.state,
      cpu: row.cpu,
      memory: row.memory,
      storage: row.storage,
    }
  )
}

/** Keeps a reservation until it is released; false when it is unknown or released. Doing it twice is doing it once. */
export async function commitReservation(tx: Kysely<UsersSchema>, reservationId: string): Promise<boolean> {
  const committed = await sql`
    update quota_reservations set state = 'committed', expires_at = null, updated_at = now() -- audit
    where reservation_id = ${reservationId} and state in ('reserved', 'committed')`.execute(tx)
  return committed.numAffectedRows === 1n
}

/**
 * Makes a reservation a tombstone, or leaves one under an unknown id. Returns whose portion is free now; undefined when
 * nothing was held.
 */
export async function releaseReservation(
  tx: Kysely<UsersSchema>,
  reservationId: string,
): Promise<(Portion & { userId: UserId }) | undefined> {
  const released = await sql<Portion & { userId: UserId | null }>`
    insert into quota_reservations as kept
      (reservation_id, state, cpu, memory, storage, released_at, release_reason)
    values (${reservationId}, 'released', 0, 0, 0, app_now(), 'released')
    on conflict (reservation_id) do update
      set state = 'released', expires_at = null, released_at = app_now(), release_reason = 'released',
          updated_at = now() -- audit
      where kept.state <> 'released'
    returning user_id as "userId", cpu, memory, storage`.execute(tx)
  const row = released.rows[0]
  if (row === undefined || row.userId === null) return undefined
  return { userId: row.userId, cpu: row.cpu, memory: row.memory, storage: row.storage }
}

/**
 * Releases reservations whose time is over and gives their portions back, in one statement; returns their ids. Rows that
 * somebody is committing or releasing at this moment are skipped.
 */
export async function expireReservations(tx: Kysely<UsersSchema>, atMost: number): Promise<string[]> {
  const expired = await sql<{ reservationIds: string[] | null }>`
    with due as (
      select reservation_id from quota_reservations
      where state = 'reserved' and expires_at <= app_now()
      order by expires_at limit ${atMost} for update skip locked
    ), gone as (
      update quota_reservations as r
      set state = 'released', expires_at = null, released_at = app_now(), release_reason = 'expired',
          updated_at = now() -- audit
      from due where r.reservation_id = due.reservation_id
      returning r.reservation_id, r.user_id, r.cpu, r.memory, r.storage
    ), freed as (
      update quotas as q
      set devices = q.devices - s.devices, cpu = q.cpu - s.cpu, memory = q.memory - s.memory,
          storage = q.storage - s.storage, updated_at = now() -- audit
      from (
        select user_id, count(*)::int as devices, sum(cpu) as cpu, sum(memory) as memory, sum(storage) as storage
        from gone group by user_id
      ) as s
      where q.user_id = s.user_id
    )
    select array_agg(reservation_id) as "reservationIds" from gone`.execute(tx)
  return expired.rows[0]?.reservationIds ?? []
}

/** Forgets tombstones older than any saga that could still ask for them; returns how many. */
export async function purgeTombstones(db: Kysely<UsersSchema>, keepDays: number): Promise<number> {
  const purged = await sql`
    delete from quota_reservations where reservation_id in (
      select reservation_id from quota_reservations
      where state = 'released' and released_at < app_now() - make_interval(days => ${keepDays}) limit 1000
    )`.execute(db)
  return Number(purged.numAffectedRows ?? 0)
}

/** Live reservations, the newest ids first, from below `beforeId` on; `limit + 1` of them when there are more. */
export async function listLiveReservations(
  db: Kysely<UsersSchema>,
  query: { beforeId: string | undefined; limit: number },
): Promise<Reservation[]> {
  const rows = await sql<Reservation>`
    select reservation_id as "reservationId", user_id as "userId", state
    from quota_reservations
    where state <> 'released' and (${query.beforeId ?? null}::uuid is null or reservation_id < ${query.beforeId ?? null}::uuid)
    order by reservation_id desc limit ${query.limit + 1}`.execute(db)
  return rows.rows
}

/** Users whose counters differ from the sum of their live reservations, and how many were compared. */
export async function compareCounters(db: Kysely<UsersSchema>): Promise<{
  users: number
  reservations: number
  wrong: { userId: UserId; counted: string; held: string }[]
}> {
  const compared = await sql<{
    userId: UserId
    counted: string
    held: string
    reservations: number
    same: boolean
  }>`
    select q.user_id as "userId",
           concat_ws('/', q.devices, q.cpu, q.memory, q.storage) as counted,
           concat_ws('/', count(r.reservation_id), coalesce(sum(r.cpu), 0), coalesce(sum(r.memory), 0),
                     coalesce(sum(r.storage), 0)) as held,
           count(r.reservation_id)::int as reservations,
           q.devices = count(r.reservation_id) and q.cpu = coalesce(sum(r.cpu), 0)
             and q.memory = coalesce(sum(r.memory), 0) and q.storage = coalesce(sum(r.storage), 0) as same
    from quotas q left join quota_reservations r on r.user_id = q.user_id and r.state <> 'released'
    group by q.user_id, q.devices, q.cpu, q.memory, q.storage`.execute(db)
  return {
    users: compared.rows.length,
    reservations: compared.rows.reduce((sum, row) => sum + row.reservations, 0),
    wrong: compared.rows
      .filter((row) => !row.same)
      .slice(0, 100)
      .map(({ userId, counted, held }) => ({ userId, counted, held })),
  }
}
