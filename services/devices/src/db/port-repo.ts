import type { DeviceId, NodeId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Kysely, sql } from 'kysely'
import type { DevicesSchema } from './schema.ts'

export interface PortSearch {
  readonly deviceId: DeviceId
  readonly nodeId: NodeId
  readonly first: number
  readonly last: number
}

/** A port was seen free and taken by another before our insert: seldom, since each device begins its search elsewhere. */
const MAX_COLLISIONS = 100

/**
 * Takes an adb port for a device: one insert that the unique constraint guards, never read-then-write. The search begins at
 * a place that depends on the device, so that parallel creations do not all want the same port. A device that holds a
 * port keeps it. Undefined when every port of the range is held, cooling down or blocked.
 */
export async function takeAdbPort(tx: Tx<DevicesSchema>, search: PortSearch): Promise<number | undefined> {
  for (let collision = 0; collision < MAX_COLLISIONS; collision += 1) {
    const taken = await insertFreePort(tx, search, collision)
    if (taken !== undefined) return taken
    const held = await heldPort(tx, search.deviceId)
    if (held !== undefined) return held
    if (!(await hasFreePort(tx, search))) return undefined
  }
  throw new Error(`node ${search.nodeId}: ${MAX_COLLISIONS} adb ports were free and then taken by others`)
}

async function insertFreePort(
  tx: Tx<DevicesSchema>,
  { deviceId, nodeId, first, last }: PortSearch,
  collision: number,
): Promise<number | undefined> {
  const size = last - first + 1
  const { rows } = await sql<{ adb_port: number }>`
    insert into port_allocations (device_id, node_id, adb_port)
    select ${deviceId}, ${nodeId}, ${first} + candidate.place
    from (
      select (k + (hashtextextended(${deviceId}, ${collision}) & 2147483647) % ${size}) % ${size} as place, k
      from generate_series(0, ${size - 1}) k
    ) candidate
    where not exists (select from port_allocations a where a.node_id = ${nodeId} and a.adb_port = ${first} + candidate.place)
      and not exists (select from port_holds h where h.node_id = ${nodeId} and h.port = ${first} + candidate.place
        and h.until > app_now())
    order by candidate.k limit 1
    on conflict do nothing
    returning adb_port`.execute(tx)
  return rows[0]?.adb_port
}

async function hasFreePort(tx: Tx<DevicesSchema>, { nodeId, first, last }: PortSearch): Promise<boolean> {
  const { rows } = await sql<{ taken: number }>`
    select count(*)::int as taken from (
      select adb_port as port from port_allocations where node_id = ${nodeId}
      union select port from port_holds where node_id = ${nodeId} and until > app_now()
    ) ports where port between ${first} and ${last}`.execute(tx)
  return (rows[0]?.taken ?? 0) < last - first + 1
}

export async function heldPort(db: Kysely<DevicesSchema>, deviceId: DeviceId): Promise<number | undefined> {
  const row = await db
    .selectFrom('port_allocations')
    .select('adb_port')
    .where('device_id', '=', deviceId)
    .executeTakeFirst()
  return row?.adb_port
}

/** Gives a device's ports back and lets them cool down; harmless when it holds none. */
export async function releasePorts(
  tx: Tx<DevicesSchema>,
  deviceId: DeviceId,
  rest: { kind: 'cooldown' | 'blocked'; seconds: number; reason: string },
): Promise<void> {
  await sql`
    with gone as (delete from port_allocations where device_id = ${deviceId}
                  returning node_id, adb_port, webrtc_port, scrcpy_port)
    insert into port_holds (node_id, port, kind, until, reason)
    select gone.node_id, ports.port, ${rest.kind}, app_now() + ${rest.seconds} * interval '1 second', ${rest.reason}
    from gone, lateral (values (gone.adb_port), (gone.webrtc_port), (gone.scrcpy_port)) ports (port)
    where ports.port is not null
    on conflict (node_id, port) do update
      set kind = excluded.kind, until = greatest(port_holds.until, excluded.until), reason = excluded.reason`.execute(
    tx,
  )
}

export async function purgePortHolds(db: Kysely<DevicesSchema>): Promise<void> {
  await sql`delete from port_holds where until <= app_now()`.execute(db)
}

export interface PortHolding {
  readonly device_id: DeviceId
  readonly adb_port: number
  readonly row_port: number | null
  readonly status: string
}

/** Every holding beside what its device's row says. */
export async function portHoldings(db: Kysely<DevicesSchema>): Promise<PortHolding[]> {
  const { rows } = await sql<PortHolding>`
    select p.device_id, p.adb_port, d.adb_port as row_port, d.status
    from port_allocations p join devices d on d.id = p.device_id order by p.adb_port`.execute(db)
  return rows
}
