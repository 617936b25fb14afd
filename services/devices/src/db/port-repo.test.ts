import { type DeviceId, type NodeId, systemIds } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { giveRoomBack, nodeUse, registerNode, takeRoom } from './node-repo.ts'
import { releasePorts, takeAdbPort } from './port-repo.ts'
import type { DevicesSchema } from './schema.ts'

let own: TestDatabase
let database: Database<DevicesSchema>
let nodeId: NodeId

beforeEach(async () => {
  own = await createTestDatabase({
    schema: 'devices',
    migrations: [APP_NOW_MIGRATIONS, new URL('./migrations/', import.meta.url)],
  })
  database = openDatabase<DevicesSchema>({
    url: own.url,
    schema: 'devices',
    poolSize: 16,
    applicationName: 'ports',
    log: silentLog(),
  })
  const node = await registerNode(database.kysely, {
    id: systemIds.next(),
    name: 'local',
    provider_type: 'simulated',
    reach_address: '127.0.0.1',
    cpu_total: 400,
    memory_total_mb: 400 * 4096,
    phones_total: 150,
  })
  nodeId = node.id
})
afterEach(async () => {
  await database.close()
  await own.drop()
})

async function makeDevices(count: number): Promise<DeviceId[]> {
  const ids = Array.from({ length: count }, () => systemIds.next<'device'>())
  const owner = systemIds.next<'user'>()
  await database.kysely
    .insertInto('devices')
    .values(
      ids.map((id) => ({
        id,
        tenant_id: systemIds.next<'tenant'>(),
        user_id: owner,
        created_by: owner,
        creation_saga_id: `device_creation-${id}`,
        name: 'one',
        status: 'CREATING' as const,
        type: 'phone' as const,
        provider_type: 'simulated' as const,
        cpu_cores: 2,
        memory_mb: 4096,
        storage_mb: 1024,
        resolution: '360x640',
        dpi: 240,
        android_version: '11',
        provider_specific_config: '{}',
        metadata: '{}',
      })),
    )
    .execute()
  return ids
}

const take = async (deviceId: DeviceId, first: number, last: number) =>
  await database.transaction(async (tx) => await takeAdbPort(tx, { deviceId, nodeId, first, last }))
const rest = { kind: 'cooldown' as const, seconds: 60, reason: 'test' }

test('200 at once get 200 different ports; the next finds none', async () => {
  const ids = await makeDevices(201)
  const ports = await Promise.all(ids.slice(0, 200).map((id) => take(id, 20_000, 20_199)))
  expect(new Set(ports).size).toBe(200)
  expect(ports.every((port) => port !== undefined && port >= 20_000 && port <= 20_199)).toBe(true)
  expect(await take(ids[200]!, 20_000, 20_199)).toBeUndefined()
})

test('a device that asks again keeps its port', async () => {
  const [id] = await makeDevices(1)
  expect(await take(id!, 20_000, 20_010)).toBe(await take(id!, 20_000, 20_010))
})

test('a port rests after use, and is given out again afterwards', async () => {
  const [one, other] = await makeDevices(2)
  const clock = testClock(own)
  expect(await take(one!, 20_000, 20_000)).toBe(20_000)
  await database.transaction(async (tx) => await releasePorts(tx, one!, rest))
  expect(await take(other!, 20_000, 20_000)).toBeUndefined()
  await clock.advance(61_000)
  expect(await take(other!, 20_000, 20_000)).toBe(20_000)
})

test('releasing what was never held leaves no hold', async () => {
  const [one] = await makeDevices(1)
  await database.transaction(async (tx) => await releasePorts(tx, one!, rest))
  const { rows } = await sql`select * from port_holds`.execute(database.kysely)
  expect(rows).toEqual([])
})

test('200 at once on a node for 150 phones: 150 get room, and what is counted is what is held', async () => {
  const ids = await makeDevices(200)
  const need = { providerType: 'simulated' as const, cpu: 2, memoryMb: 4096 }
  const nodes = await Promise.all(
    ids.map(async (deviceId) => await database.transaction((tx) => takeRoom(tx, { deviceId, ...need }))),
  )
  const lucky = ids.filter((_id, index) => nodes[index] !== undefined)
  expect(lucky).toHaveLength(150)
  for (const id of [...lucky, ...lucky.slice(0, 20)].slice(0, 170)) {
    await database.transaction(async (tx) => await giveRoomBack(tx, id))
  }
  const [node] = await nodeUse(database.kysely)
  expect(node).toMatchObject({ phones_used: 0, held_phones: 0, cpu_used: 0, memory_used_mb: 0 })
})
