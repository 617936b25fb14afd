import type { TenantId, UserId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import type { KnownReservation, WantedReservation } from '../domain/admission.ts'
import type { QuotaDefaults, QuotaLimits, Reservation } from '../domain/quota.ts'
import type { UsersSchema } from './schema.ts'

/** Whatever became of these ids; those that nobody knows are absent. */
export async function findReservations(
  db: Kysely<UsersSchema>,
  ids: readonly string[],
): Promise<Map<string, KnownReservation>> {
  const found = await sql<KnownReservation & { id: string }>`
    select reservation_id as id, user_id as "userId", state, devices, cpu, memory, storage, sessions
    from quota_reservations where reservation_id = any(${ids}::uuid[])`.execute(db)
  return new Map(found.rows.map(({ id, ...row }) => [id, row]))
}

const fits = (limits: QuotaLimits) => sql`
  (asked.devices = 0 or book.devices + asked.devices <= coalesce(book.max_devices, ${limits.maxDevices}::int))
  and (asked.cpu = 0 or book.cpu + asked.cpu <= coalesce(book.max_cpu, ${limits.maxCpu}::int))
  and (asked.memory = 0 or book.memory + asked.memory <= coalesce(book.max_memory, ${limits.maxMemory}::int))
  and (asked.storage = 0 or book.storage + asked.storage <= coalesce(book.max_storage, ${limits.maxStorage}::int))
  and (asked.sessions = 0
       or book.sessions + asked.sessions <= coalesce(book.max_sessions, ${limits.maxSessions}::int))`

const sums = sql`
  sum(devices)::int as devices, sum(cpu)::bigint as cpu, sum(memory)::bigint as memory,
  sum(storage)::bigint as storage, sum(sessions)::int as sessions`

/**
 * Writes reservations under new ids and takes their portions of the users' and the tenants' books, in one guarded statement.
 * False when an id was known, a user is not active or something did not fit: then the transaction must be rolled back.
 */
export async function takePortions(
  tx: Kysely<UsersSchema>,
  wanted: readonly WantedReservation[],
  defaults: QuotaDefaults,
): Promise<boolean> {
  const column = <Value>(of: (one: WantedReservation) => Value) => wanted.map(of)
  const taken = await sql<{ made: number; users: number; tenants: number }>`
    with made as (
      insert into quota_reservations
        (reservation_id, user_id, state, devices, cpu, memory, storage, sessions, expires_at)
      select id, user_id, 'reserved', devices, cpu, memory, storage, sessions,
             app_now() + make_interval(secs => ttl_seconds)
      from unnest(${column((one) => one.reservationId)}::uuid[], ${column((one) => one.userId)}::uuid[],
                  ${column((one) => one.devices)}::int[], ${column((one) => one.cpu)}::int[],
                  ${column((one) => one.memory)}::int[], ${column((one) => one.storage)}::int[],
                  ${column((one) => one.sessions)}::int[], ${column((one) => one.ttlSeconds)}::int[])
        as wanted (id, user_id, devices, cpu, memory, storage, sessions, ttl_seconds)
      order by id
      on conflict (reservation_id) do nothing
      returning user_id, devices, cpu, memory, storage, sessions
    ), of_users as (
      select user_id, ${sums} from made group by user_id
    ), of_tenants as (
      select users.tenant_id, ${sums} from of_users join users on users.id = of_users.user_id group by tenant_id
    ), from_users as (
      update quotas as book
      set devices = book.devices + asked.devices, cpu = book.cpu + asked.cpu, memory = book.memory + asked.memory,
          storage = book.storage + asked.storage, sessions = book.sessions + asked.sessions, updated_at = now() -- audit
      from of_users as asked
      where book.user_id = asked.user_id
        and exists (select from users where users.id = asked.user_id and users.status = 'active')
        and ${fits(defaults.user)}
      returning book.user_id
    ), from_tenants as (
      update tenant_quotas as book
      set devices = book.devices + asked.devices, cpu = book.cpu + asked.cpu, memory = book.memory + asked.memory,
          storage = book.storage + asked.storage, sessions = book.sessions + asked.sessions, updated_at = now() -- audit
      from of_tenants as asked
      where book.tenant_id = asked.tenant_id and ${fits(defaults.tenant)}
      returning book.tenant_id
    )
    select (select count(*)::int from made) as made,
           (select count(*)::int from from_users) - (select count(*)::int from of_users) as users,
           (select count(*)::int from from_tenants) - (select count(*)::int from of_tenants) as tenants`.execute(
    tx,
  )
  const row = taken.rows[0]
  return row?.made === wanted.length && row.users === 0 && row.tenants === 0
}

/** Keeps reservations until they are released; answers the ids of those that are live. Twice is once. */
export async function commitReservations(
  db: Kysely<UsersSchema>,
  ids: readonly string[],
): Promise<Set<string>> {
  const committed = await sql<{ id: string }>`
    with live as (
      select reservation_id from quota_reservations
      where reservation_id = any(${ids}::uuid[]) and state in ('reserved', 'committed')
      order by reservation_id for update
    )
    update quota_reservations as kept
    set state = 'committed', expires_at = null, updated_at = now() -- audit
    from live where kept.reservation_id = live.reservation_id
    returning kept.reservation_id as id`.execute(db)
  return new Set(committed.rows.map(({ id }) => id))
}

/**
 * Makes live reservations tombstones and gives their portions back, in one statement; answers the ids of those it ended.
 * `expired`: only what nobody committed in time. The books of their users and tenants must be locked.
 */
export async function endReservations(
  tx: Kysely<UsersSchema>,
  ids: readonly string[],
  reason: 'released' | 'expired',
): Promise<string[]> {
  const due = reason === 'expired' ? sql`state = 'reserved' and expires_at <= app_now()` : sql`true`
  const ended = await sql<{ ids: string[] | null }>`
    with live as (
      select reservation_id from quota_reservations
      where reservation_id = any(${ids}::uuid[]) and state <> 'released' and ${due}
      order by reservation_id for update
    ), ended as (
      update quota_reservations as kept
      set state = 'released', expires_at = null, released_at = app_now(), release_reason = ${reason},
          updated_at = now() -- audit
      from live where kept.reservation_id = live.reservation_id
      returning kept.reservation_id, kept.user_id, kept.devices, kept.cpu, kept.memory, kept.storage, kept.sessions
    ), of_users as (
      select user_id, ${sums} from ended group by user_id
    ), of_tenants as (
      select users.tenant_id, ${sums} from of_users join users on users.id = of_users.user_id group by tenant_id
    ), to_users as (
      update quotas as book
      set devices = book.devices - freed.devices, cpu = book.cpu - freed.cpu, memory = book.memory - freed.memory,
          storage = book.storage - freed.storage, sessions = book.sessions - freed.sessions, told = '{}',
          updated_at = now() -- audit
      from of_users as freed where book.user_id = freed.user_id
    ), to_tenants as (
      update tenant_quotas as book
      set devices = book.devices - freed.devices, cpu = book.cpu - freed.cpu, memory = book.memory - freed.memory,
          storage = book.storage - freed.storage, sessions = book.sessions - freed.sessions, told = '{}',
          updated_at = now() -- audit
      from of_tenants as freed where book.tenant_id = freed.tenant_id
    )
    select array_agg(reservation_id) as ids from ended`.execute(tx)
  return ended.rows[0]?.ids ?? []
}

/** Leaves tombstones under ids that nobody knows; answers how many. */
export async function insertTombstones(tx: Kysely<UsersSchema>, ids: readonly string[]): Promise<number> {
  const inserted = await sql`
    insert into quota_reservations
      (reservation_id, state, devices, cpu, memory, storage, sessions, released_at, release_reason)
    select id, 'released', 0, 0, 0, 0, 0, app_now(), 'released' from unnest(${ids}::uuid[]) as unknown (id)
    order by id on conflict (reservation_id) do nothing`.execute(tx)
  return Number(inserted.numAffectedRows ?? 0)
}

/** Reservations that nobody committed in their time, the oldest first. */
export async function listDue(
  db: Kysely<UsersSchema>,
  atMost: number,
): Promise<{ reservationId: string; userId: UserId }[]> {
  const due = await sql<{ reservationId: string; userId: UserId }>`
    select reservation_id as "reservationId", user_id as "userId" from quota_reservations
    where state = 'reserved' and expires_at <= app_now() order by expires_at limit ${atMost}`.execute(db)
  return due.rows
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
): Promise<(Reservation & { sessions: number })[]> {
  const rows = await sql<Reservation & { sessions: number }>`
    select reservation_id as "reservationId", user_id as "userId", state, sessions
    from quota_reservations
    where state <> 'released' and (${query.beforeId ?? null}::uuid is null or reservation_id < ${query.beforeId ?? null}::uuid)
    order by reservation_id desc limit ${query.limit + 1}`.execute(db)
  return rows.rows
}

/** A book whose counters differ from the sum of its live reservations. */
export type Drift = { readonly counted: string; readonly held: string } & (
  | { readonly whose: 'user'; readonly id: UserId }
  | { readonly whose: 'tenant'; readonly id: TenantId }
)

const counted = sql`concat_ws('/', book.devices, book.cpu, book.memory, book.storage, book.sessions)`
const held = sql`
  concat_ws('/', coalesce(held.devices, 0), coalesce(held.cpu, 0), coalesce(held.memory, 0),
            coalesce(held.storage, 0), coalesce(held.sessions, 0))`

const heldSums = sql`
  select users.id as user_id, users.tenant_id,
         sum(held.devices) as devices, sum(held.cpu) as cpu, sum(held.memory) as memory, sum(held.storage) as storage,
         sum(held.sessions) as sessions, count(*) as reservations
  from quota_reservations as held join users on users.id = held.user_id
  where held.state <> 'released' group by users.id, users.tenant_id`

/** Compares all books with their reservations, in one snapshot. `wrong` has 100 of each kind at most. */
export async function compareCounters(
  db: Kysely<UsersSchema>,
): Promise<{ users: number; tenants: number; reservations: number; wrong: Drift[] }> {
  const compared = await sql<{ users: number; tenants: number; reservations: number; wrong: Drift[] | null }>`
    with of_users as materialized (${heldSums}), of_tenants as (
      select tenant_id, sum(devices) as devices, sum(cpu) as cpu, sum(memory) as memory, sum(storage) as storage,
             sum(sessions) as sessions
      from of_users group by tenant_id
    ), compared as (
      select 'user' as whose, book.user_id as id, ${counted} as counted, ${held} as held
      from quotas as book left join of_users as held using (user_id)
      union all
      select 'tenant', book.tenant_id, ${counted}, ${held}
      from tenant_quotas as book left join of_tenants as held using (tenant_id)
    ), wrong as (
      select * from compared where counted <> held order by whose, id limit 200
    )
    select (select count(*)::int from quotas) as users, (select count(*)::int from tenant_quotas) as tenants,
           coalesce((select sum(reservations)::int from of_users), 0) as reservations,
           (select json_agg(wrong) from wrong) as wrong`.execute(db)
  const row = compared.rows[0]
  if (row === undefined) throw new Error('an aggregate has one row')
  return { ...row, wrong: row.wrong ?? [] }
}

const recounted = sql`
  set devices = held.devices, cpu = held.cpu, memory = held.memory, storage = held.storage,
      sessions = held.sessions, updated_at = now() -- audit
  from (select coalesce(sum(devices), 0)::int as devices, coalesce(sum(cpu), 0)::bigint as cpu,
               coalesce(sum(memory), 0)::bigint as memory, coalesce(sum(storage), 0)::bigint as storage,
               coalesce(sum(sessions), 0)::int as sessions
        from quota_reservations as one where one.state <> 'released'`
const differs = sql`
  (book.devices, book.cpu, book.memory, book.storage, book.sessions)
  is distinct from (held.devices, held.cpu, held.memory, held.storage, held.sessions)`

/**
 * Sets a book's counters to the sum of its live reservations; false when they are that. The book must be locked: then no
 * reservation of it is on its way in another transaction.
 */
export async function recountBook(tx: Kysely<UsersSchema>, drift: Drift): Promise<boolean> {
  const repaired =
    drift.whose === 'user'
      ? await sql`
          update quotas as book ${recounted} and one.user_id = ${drift.id}) as held
          where book.user_id = ${drift.id} and ${differs}`.execute(tx)
      : await sql`
          update tenant_quotas as book ${recounted}
            and one.user_id in (select id from users where tenant_id = ${drift.id})) as held
          where book.tenant_id = ${drift.id} and ${differs}`.execute(tx)
  return repaired.numAffectedRows === 1n
}
