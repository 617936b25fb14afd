import type { DeviceId, TenantId, UserId } from '@cloudphone/contracts/id'
import { type Insertable, type Kysely, type SelectQueryBuilder, sql } from 'kysely'
import type { ClosedBy } from '../domain/meter.ts'
import type { BillingSchema, UsageRow } from './schema.ts'

type Reader = Kysely<BillingSchema>

/** Makes the next who speaks of this phone wait for the end of this transaction. */
export async function lockMeter(tx: Reader, deviceId: DeviceId): Promise<void> {
  await sql`
    insert into meters (device_id) values (${deviceId})
    on conflict (device_id) do update set device_id = excluded.device_id`.execute(tx)
}

export async function findRecord(tx: Reader, id: string): Promise<UsageRow | undefined> {
  return await tx.selectFrom('usage_records').selectAll().where('id', '=', id).executeTakeFirst()
}

/** The record of the last run that began before `at`, or at `at` itself with `including`. */
export async function findRunBefore(
  tx: Reader,
  { deviceId, at, edge }: { deviceId: DeviceId; at: Date; edge: 'including' | 'excluding' },
): Promise<UsageRow | undefined> {
  return await tx
    .selectFrom('usage_records')
    .selectAll()
    .where('device_id', '=', deviceId)
    .where('start_time', edge === 'including' ? '<=' : '<', at)
    .orderBy('start_time', 'desc')
    .limit(1)
    .executeTakeFirst()
}

/** The record of the first run that began after `at`. */
export async function findRunAfter(
  tx: Reader,
  { deviceId, at }: { deviceId: DeviceId; at: Date },
): Promise<UsageRow | undefined> {
  return await tx
    .selectFrom('usage_records')
    .selectAll()
    .where('device_id', '=', deviceId)
    .where('start_time', '>', at)
    .orderBy('start_time')
    .limit(1)
    .executeTakeFirst()
}

export async function insertRecord(
  tx: Reader,
  values: Insertable<BillingSchema['usage_records']>,
): Promise<void> {
  await tx.insertInto('usage_records').values(values).execute()
}

export interface Closing {
  readonly endTime: Date
  readonly duration: number
  readonly costMicro: number
  readonly closedBy: ClosedBy
  readonly eventId: string
}

/** Gives a record an end, or another one than it had. */
export async function closeRecord(tx: Reader, id: string, closing: Closing): Promise<void> {
  await tx
    .updateTable('usage_records')
    .set({
      end_time: closing.endTime,
      duration: closing.duration,
      cost_micro: closing.costMicro,
      closed_by: closing.closedBy,
      closed_by_event: closing.eventId,
      updated_at: sql<Date>`now() /* audit */`,
    })
    .where('id', '=', id)
    .execute()
}

/** Keeps an end that names no run. */
export async function insertLooseEnd(
  tx: Reader,
  end: { deviceId: DeviceId; at: Date; closedBy: ClosedBy; eventId: string },
): Promise<void> {
  await tx
    .insertInto('loose_ends')
    .values({ device_id: end.deviceId, at: end.at, closed_by: end.closedBy, event_id: end.eventId })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

/** The ends that name no run, from `from` on. */
export async function listLooseEnds(
  tx: Reader,
  { deviceId, from }: { deviceId: DeviceId; from: Date },
): Promise<{ at: Date; by: ClosedBy; eventId: string }[]> {
  const rows = await tx
    .selectFrom('loose_ends')
    .select(['at', 'closed_by', 'event_id'])
    .where('device_id', '=', deviceId)
    .where('at', '>=', from)
    .orderBy('at')
    .execute()
  return rows.map((row) => ({ at: row.at, by: row.closed_by, eventId: row.event_id }))
}

export interface UsageFilter {
  readonly tenantId: TenantId
  readonly userId: UserId
  readonly deviceId: DeviceId | undefined
}

function matching<Output>(
  select: SelectQueryBuilder<BillingSchema, 'usage_records', Output>,
  { tenantId, userId, deviceId }: UsageFilter,
): SelectQueryBuilder<BillingSchema, 'usage_records', Output> {
  const own = select.where('tenant_id', '=', tenantId).where('user_id', '=', userId)
  return deviceId === undefined ? own : own.where('device_id', '=', deviceId)
}

/** Records, the newest first, from below `beforeOrdinal` on; one more than `limit` if there are more. */
export async function listUsage(
  db: Reader,
  query: UsageFilter & { beforeOrdinal: number | undefined; limit: number },
): Promise<UsageRow[]> {
  let select = matching(db.selectFrom('usage_records').selectAll(), query)
    .orderBy('ordinal', 'desc')
    .limit(query.limit + 1)
  if (query.beforeOrdinal !== undefined) select = select.where('ordinal', '<', query.beforeOrdinal)
  return await select.execute()
}

export interface UsageSum {
  readonly records: number
  readonly open: number
  readonly seconds: number
  readonly costMicro: number
}

/** Sums closed records. Throws RangeError when the sum is beyond what a number holds exactly. */
export async function sumUsage(db: Reader, filter: UsageFilter): Promise<UsageSum> {
  const row = await matching(
    db
      .selectFrom('usage_records')
      .select([
        sql<string>`count(end_time)`.as('records'),
        sql<string>`count(*) filter (where end_time is null)`.as('open'),
        sql<string>`coalesce(sum(duration), 0)`.as('seconds'),
        sql<string>`coalesce(sum(cost_micro), 0)`.as('costMicro'),
      ]),
    filter,
  ).executeTakeFirstOrThrow()
  return {
    records: exact(row.records),
    open: exact(row.open),
    seconds: exact(row.seconds),
    costMicro: exact(row.costMicro),
  }
}

function exact(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new RangeError(`The sum ${text} does not fit a number`)
  return value
}

export interface BookFacts {
  readonly closed: number
  readonly open: readonly { id: string; deviceId: DeviceId }[]
  /** Closed records whose cost is not what their seconds and price make. */
  readonly wrong: readonly { id: string; cost: number }[]
  /** Pairs of records of one phone that share a moment. */
  readonly overlapping: readonly { id: string; other: string }[]
}

/** Adds the books up from the rows alone, without the arithmetic that wrote them. */
export async function auditBooks(db: Reader): Promise<BookFacts> {
  const counted = await sql<{ closed: string }>`
    select count(*) as closed from usage_records where end_time is not null`.execute(db)
  const open = await db
    .selectFrom('usage_records')
    .select(['id', 'device_id as deviceId'])
    .where('end_time', 'is', null)
    .execute()
  const wrong = await sql<{ id: string; cost: number }>`
    select id, cost_micro as cost from (
      select *, duration::numeric * price_micro_per_hour as product from usage_records) priced
    where end_time is not null and (
      duration <> floor(extract(epoch from end_time - start_time))
      or abs(cost_micro * 3600 - product) > 1800
      or (abs(cost_micro * 3600 - product) = 1800 and mod(cost_micro, 2) <> 0))
    limit 100`.execute(db)
  const overlapping = await sql<{ id: string; other: string }>`
    select one.id, other.id as other from usage_records one
    join usage_records other on other.device_id = one.device_id and other.id > one.id
      and tstzrange(one.start_time, one.end_time) && tstzrange(other.start_time, other.end_time)
    limit 100`.execute(db)
  return {
    closed: exact(counted.rows[0]?.closed ?? '0'),
    open: open,
    wrong: wrong.rows,
    overlapping: overlapping.rows,
  }
}
