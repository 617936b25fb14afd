import { type DeviceId, systemIds } from '@cloudphone/contracts/id'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { present } from '@cloudphone/testing/present'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { registerNode } from './node-repo.ts'
import { insertGrant } from './quota-grant-repo.ts'
import type { DevicesSchema } from './schema.ts'
import { lockSoiled, purgeWipes } from './wipe-repo.ts'

/* What the tables refuse, whatever the code above believes: each of these is an invariant of the platform. */

let own: TestDatabase
let database: Database<DevicesSchema>

beforeAll(async () => {
  own = await createTestDatabase({
    schema: 'devices',
    migrations: [APP_NOW_MIGRATIONS, new URL('./migrations/', import.meta.url)],
  })
  const log = silentLog()
  database = openDatabase({ url: own.url, schema: 'devices', poolSize: 2, applicationName: 'guards', log })
})
afterAll(async () => {
  await database.close()
  await own.drop()
})

async function makeDevice(): Promise<DeviceId> {
  const id = systemIds.next<'device'>()
  await database.pool.query(
    `insert into devices (id, tenant_id, created_by, creation_saga_id, name, status, type, provider_type, cpu_cores,
       memory_mb, storage_mb, resolution, dpi, android_version)
     values ($1, $1, $1, 'saga', 'one', 'CREATING', 'phone', 'simulated', 2, 4096, 1024, '360x640', 240, '11')`,
    [id],
  )
  return id
}

test('a user has five phones at most whose quota is not settled', async () => {
  const userId = systemIds.next<'user'>()
  const ids = await Promise.all(Array.from({ length: 8 }, makeDevice))
  const granted = await Promise.all(ids.map((deviceId) => insertGrant(database.kysely, { deviceId, userId })))
  expect(granted.filter((one) => one)).toHaveLength(5)
  await expect(
    database.pool.query('insert into quota_grants (device_id, user_id, slot) values ($1, $2, 1)', [
      ids[granted.indexOf(false)],
      userId,
    ]),
  ).rejects.toMatchObject({ constraint: 'quota_grants_five_each' })
  const first = present(ids[granted.indexOf(true)])
  expect(await insertGrant(database.kysely, { deviceId: first, userId })).toBe(true)
})

test('only a clean phone is held, and only a wipe that left nothing is a proof', async () => {
  const id = await makeDevice()
  const hold = (hygiene: string) =>
    database.pool.query(
      'update devices set hygiene = $2, allocation_id = $3, holder_user_id = $3, fence = 1 where id = $1',
      [id, hygiene, systemIds.next()],
    )
  for (const hygiene of ['soiled', 'quarantined'])
    await expect(hold(hygiene)).rejects.toMatchObject({ constraint: 'devices_held_is_clean' })
  await hold('clean')
  const prove = (saga: string, residue: string[]) =>
    database.pool.query(
      `insert into device_wipes (saga_id, device_id, tenant_id, fence, reason, method, erased, residue)
       values ($1, $2, $2, 1, 'handover', 'data_erased', 1, $3)`,
      [saga, id, residue],
    )
  await expect(prove('one', ['data'])).rejects.toMatchObject({ constraint: 'device_wipes_are_proved' })
  await prove('one', [])
  await expect(prove('one', [])).rejects.toMatchObject({ constraint: 'device_wipes_pkey' })
})

test('a wipe begins only of a phone that is still soiled', async () => {
  const id = await makeDevice()
  const locked = () => database.transaction((tx) => lockSoiled(tx, id))
  expect(await locked()).toBeUndefined()
  await database.pool.query(`update devices set hygiene = 'soiled' where id = $1`, [id])
  expect(await locked()).toMatchObject({ id })
})

test('the proof of a wipe is kept for a year', async () => {
  const id = await makeDevice()
  for (const days of [364, 367])
    await database.pool.query(
      `insert into device_wipes (saga_id, device_id, tenant_id, fence, reason, method, erased, residue, wiped_at)
       values ($1, $2, $2, 1, 'reset', 'data_erased', 1, '{}', app_now() - $3 * interval '1 day')`,
      [`${days} days`, id, days],
    )
  await database.transaction((tx) => purgeWipes(tx))
  const left = await database.pool.query('select saga_id as saga from device_wipes where device_id = $1', [
    id,
  ])
  expect(left.rows).toEqual([{ saga: '364 days' }])
})

test('a phone takes room on a node once', async () => {
  await registerNode(database.kysely, {
    id: systemIds.next(),
    name: 'local',
    provider_type: 'simulated',
    reach_address: '127.0.0.1',
    cpu_total: 8,
    memory_total_mb: 16_384,
    phones_total: 4,
  })
  const deviceId = await makeDevice()
  const hold = () =>
    database.pool.query(
      'insert into node_holdings (device_id, node_id, cpu, memory_mb) select $1, id, 2, 4096 from nodes',
      [deviceId],
    )
  await hold()
  await expect(hold()).rejects.toMatchObject({ constraint: 'node_holdings_pkey' })
})

test('an allocation holds one phone', async () => {
  const allocation = systemIds.next<'allocation'>()
  const hold = async (id: DeviceId) =>
    await database.pool.query('update devices set allocation_id = $2, holder_user_id = $2 where id = $1', [
      id,
      allocation,
    ])
  await hold(await makeDevice())
  const another = await makeDevice()
  await expect(hold(another)).rejects.toMatchObject({ constraint: 'idx_devices_allocation' })
})

test('a thing at the provider belongs to one phone', async () => {
  const bind = async (id: DeviceId) =>
    await database.pool.query("update devices set external_id = 'thing 1' where id = $1", [id])
  await bind(await makeDevice())
  const another = await makeDevice()
  await expect(bind(another)).rejects.toMatchObject({ constraint: 'devices_external_id_key' })
})
