import type { DeviceStatus } from '@cloudphone/contracts/device'
import type { DeviceId, TenantId } from '@cloudphone/contracts/id'
import { type Kysely, sql } from 'kysely'
import { freeAvailability } from '../domain/allocation.ts'
import type { SchedulerSchema } from './schema.ts'

/** How many fences a claim takes: one for the hold, one for its end. */
const FENCES_PER_CLAIM = 2

export interface PhoneNews {
  readonly deviceId: DeviceId
  readonly name: string
  readonly tenantId: TenantId
  readonly status: DeviceStatus
  readonly deleted: boolean
  readonly fence: number
  readonly version: number
}

/**
 * Writes what an event says of a pooled phone, unless something newer is known or the phone is gone. A phone that is
 * held stays so: only the end of its allocation frees it. False when the news was old.
 */
export async function mirrorPhone(tx: Kysely<SchedulerSchema>, news: PhoneNews): Promise<boolean> {
  const availability = freeAvailability(news.status, news.deleted)
  const written = await sql`
    insert into device_mirror as known (device_id, name, tenant_id, status, availability, fence, version, deleted)
    values (${news.deviceId}, ${news.name}, ${news.tenantId}, ${news.status}, ${availability}, ${news.fence},
            ${news.version}, ${news.deleted})
    on conflict (device_id) do update set
      name = excluded.name, status = excluded.status, deleted = excluded.deleted, version = excluded.version,
      fence = greatest(known.fence, excluded.fence),
      availability = case when known.availability in ('available', 'unavailable')
          or (excluded.deleted and known.availability <> 'leased')
        then excluded.availability else known.availability end,
      available_since = case when known.availability = 'unavailable' and excluded.availability = 'available'
        then app_now() else known.available_since end,
      updated_at = now()
    where known.version < excluded.version and not known.deleted`.execute(tx)
  return written.numAffectedRows === 1n
}

/**
 * Takes the phone of the tenant that has been free for longest, with the fences of the hold and of its end. Those who
 * ask at the same moment pass each other by: nobody waits, nobody gets the same phone. Undefined when none is free.
 */
export async function claimPhone(
  tx: Kysely<SchedulerSchema>,
  tenantId: TenantId,
): Promise<{ deviceId: DeviceId; name: string; fence: number; releaseFence: number } | undefined> {
  const { rows } = await sql<{ device_id: DeviceId; name: string; fence: number }>`
    with free as materialized (
      select device_id from device_mirror
      where tenant_id = ${tenantId} and availability = 'available'
      order by available_since limit 1 for update skip locked)
    update device_mirror as phone
    set availability = 'leased', fence = phone.fence + ${FENCES_PER_CLAIM}, updated_at = now()
    from free where phone.device_id = free.device_id
    returning phone.device_id, phone.name, phone.fence`.execute(tx)
  const row = rows[0]
  return row && { deviceId: row.device_id, name: row.name, fence: row.fence - 1, releaseFence: row.fence }
}

/**
 * Ends the lease of a phone: it is available again if it runs. One that its holder left `soiledUnder` a fence is first cleaned,
 * unless word of its wipe under that fence has come before this.
 */
export async function freePhone(
  tx: Kysely<SchedulerSchema>,
  deviceId: DeviceId,
  { soiledUnder = 0 }: { soiledUnder?: number } = {},
): Promise<void> {
  await sql`
    update device_mirror
    set availability = case
          when deleted then 'unavailable'
          when wiped_fence < ${soiledUnder} then 'cleaning'
          when ${soiledUnder} > 0 and wipe_failed then 'quarantined'
          when status = 'RUNNING' then 'available' else 'unavailable' end,
        available_since = app_now(), updated_at = now()
    where device_id = ${deviceId} and availability = 'leased'`.execute(tx)
}

/** Notes what became of the wipe of a phone that was left under `fence`, and ends its cleaning or begins its quarantine. */
export async function noteWipe(
  tx: Kysely<SchedulerSchema>,
  { deviceId, fence, isProved }: { deviceId: DeviceId; fence: number; isProved: boolean },
): Promise<void> {
  await sql`
    update device_mirror
    set wiped_fence = ${fence}, wipe_failed = ${!isProved},
        availability = case
          when availability not in ('cleaning', 'quarantined') or fence > ${fence} then availability
          when ${!isProved} then 'quarantined'
          when status = 'RUNNING' then 'available' else 'unavailable' end,
        available_since = app_now(), updated_at = now()
    where device_id = ${deviceId} and wiped_fence <= ${fence}`.execute(tx)
}

/** How many pooled phones a tenant has, in whatever state. */
export async function countPhones(db: Kysely<SchedulerSchema>, tenantId: TenantId): Promise<number> {
  const { count } = await db
    .selectFrom('device_mirror')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('tenant_id', '=', tenantId)
    .where('deleted', '=', false)
    .executeTakeFirstOrThrow()
  return Number(count)
}
