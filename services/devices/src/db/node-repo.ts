import type { DeviceId, NodeId } from '@cloudphone/contracts/id'
import type { Tx } from '@cloudphone/db/database'
import { type Insertable, type Kysely, sql } from 'kysely'
import type { DevicesSchema, NodeRow } from './schema.ts'

/** Makes a node known, or brings its capacity up to date; what is used stays. */
export async function registerNode(
  db: Kysely<DevicesSchema>,
  node: Insertable<DevicesSchema['nodes']>,
): Promise<NodeRow> {
  return await db
    .insertInto('nodes')
    .values(node)
    .onConflict((on) =>
      on.column('name').doUpdateSet((eb) => ({
        provider_type: eb.ref('excluded.provider_type'),
        reach_address: eb.ref('excluded.reach_address'),
        cpu_total: eb.ref('excluded.cpu_total'),
        memory_total_mb: eb.ref('excluded.memory_total_mb'),
        phones_total: eb.ref('excluded.phones_total'),
      })),
    )
    .returningAll()
    .executeTakeFirstOrThrow()
}

export async function listNodes(db: Kysely<DevicesSchema>): Promise<NodeRow[]> {
  return await db.selectFrom('nodes').selectAll().orderBy('name').execute()
}

/**
 * Takes room for a device on the emptiest node that has it: one guarded update, so that two takers cannot both get the
 * last place. A device that holds room already keeps it. Undefined when no node has room.
 */
export async function takeRoom(
  tx: Tx<DevicesSchema>,
  need: { deviceId: DeviceId; providerType: NodeRow['provider_type']; cpu: number; memoryMb: number },
): Promise<NodeRow | undefined> {
  const held = await tx
    .selectFrom('node_holdings')
    .innerJoin('nodes', 'nodes.id', 'node_holdings.node_id')
    .selectAll('nodes')
    .where('device_id', '=', need.deviceId)
    .executeTakeFirst()
  if (held !== undefined) return held
  const candidates = await tx
    .selectFrom('nodes')
    .select('id')
    .where('provider_type', '=', need.providerType)
    .where('cordoned', '=', false)
    .orderBy(sql`phones_used::float / greatest(phones_total, 1)`)
    .execute()
  for (const { id } of candidates) {
    const taken = await sql<NodeRow>`
      update nodes set cpu_used = cpu_used + ${need.cpu}, memory_used_mb = memory_used_mb + ${need.memoryMb},
        phones_used = phones_used + 1
      where id = ${id} and not cordoned and cpu_total - cpu_used >= ${need.cpu}
        and memory_total_mb - memory_used_mb >= ${need.memoryMb} and phones_total - phones_used >= 1
      returning *`.execute(tx)
    const node = taken.rows[0]
    if (node === undefined) continue
    await tx
      .insertInto('node_holdings')
      .values({ device_id: need.deviceId, node_id: id, cpu: need.cpu, memory_mb: need.memoryMb })
      .execute()
    return node
  }
  return undefined
}

/** Gives a device's room back; harmless when it holds none. */
export async function giveRoomBack(tx: Tx<DevicesSchema>, deviceId: DeviceId): Promise<void> {
  await sql`
    with gone as (delete from node_holdings where device_id = ${deviceId} returning node_id, cpu, memory_mb)
    update nodes set cpu_used = cpu_used - gone.cpu, memory_used_mb = memory_used_mb - gone.memory_mb,
      phones_used = phones_used - 1
    from gone where nodes.id = gone.node_id`.execute(tx)
}

export interface NodeUse {
  readonly id: NodeId
  readonly name: string
  readonly cpu_used: number
  readonly memory_used_mb: number
  readonly phones_used: number
  readonly held_cpu: number
  readonly held_memory_mb: number
  readonly held_phones: number
}

/** Each node's counters beside the sums of what its devices hold: they must be equal. */
export async function nodeUse(db: Kysely<DevicesSchema>): Promise<NodeUse[]> {
  const { rows } = await sql<NodeUse>`
    select n.id, n.name, n.cpu_used, n.memory_used_mb, n.phones_used, coalesce(sum(h.cpu), 0)::int as held_cpu,
      coalesce(sum(h.memory_mb), 0)::bigint as held_memory_mb, count(h.device_id)::int as held_phones
    from nodes n left join node_holdings h on h.node_id = n.id group by n.id order by n.name`.execute(db)
  return rows
}
