import { randomUUID } from 'node:crypto'
import { silentLog } from '@cloudphone/observe/log'
import { testPostgres } from '@cloudphone/testing/postgres-door'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { withClient } from './client.ts'
import { openDatabase } from './database.ts'
import { APP_NOW_MIGRATIONS, migrate } from './migrate.ts'
import { type DatabaseLayout, provision, type ServiceDatabase, serviceDatabases } from './provision.ts'
import { type DatabaseTarget, retarget } from './target.ts'

const log = silentLog()
let adminUrl: DatabaseTarget
let layout: DatabaseLayout
let names: { core: string; billing: string; users: string; devices: string; ledger: string }

beforeEach(async () => {
  adminUrl = await testPostgres()
  // Roles belong to the whole server, which other tests use too.
  const id = randomUUID().slice(0, 8)
  names = {
    core: `core_${id}`,
    billing: `billing_${id}`,
    users: `users_${id}`,
    devices: `devices_${id}`,
    ledger: `ledger_${id}`,
  }
  layout = { [names.core]: [names.users, names.devices], [names.billing]: [names.ledger] }
})
afterEach(async () => {
  await withClient(adminUrl, 'test', async (admin) => {
    for (const database of Object.keys(layout))
      await admin.query(`drop database if exists ${database} with (force)`)
    for (const schema of Object.values(layout).flat())
      await admin.query(`drop role if exists cloudphone_${schema}`)
  })
})

function serviceIn(services: Record<string, ServiceDatabase>, name: string): ServiceDatabase {
  const service = services[name]
  if (service === undefined) throw new Error(`no ${name}`)
  return service
}

const query = (url: DatabaseTarget, statement: string) =>
  withClient(url, 'test', async (client) => (await client.query(statement)).rows)

test('each service finds its own schema first and may do anything there', async () => {
  const services = await provision({ adminUrl, layout, log })
  const users = serviceIn(services, names.users)
  await migrate({ url: users.url, schema: users.schema, directories: [APP_NOW_MIGRATIONS], log })
  await query(users.url, 'create table account (id int)')
  expect(await query(users.url, 'select current_user as who, current_schema() as schema')).toEqual([
    { who: `cloudphone_${names.users}`, schema: names.users },
  ])
  await using db = openDatabase({
    url: users.url,
    schema: users.schema,
    poolSize: 1,
    applicationName: 'test',
    log,
  })
  const { rows } = await sql<{ now: Date }>`select app_now() as now`.execute(db.kysely)
  expect(rows[0]?.now).toBeInstanceOf(Date)
})

test("a service cannot read a neighbour's table, enter another database or use public", async () => {
  const services = await provision({ adminUrl, layout, log })
  const [users, devices] = [serviceIn(services, names.users), serviceIn(services, names.devices)]
  await query(users.url, 'create table account (id int)')
  await expect(query(devices.url, `select * from ${names.users}.account`)).rejects.toThrow(
    `permission denied for schema ${names.users}`,
  )
  await expect(query(devices.url, 'create table public.mine (id int)')).rejects.toThrow(
    'permission denied for schema public',
  )
  await expect(query(devices.url, 'create schema mine')).rejects.toThrow('permission denied for database')
  await expect(query(retarget(devices.url, { database: names.billing }), 'select 1')).rejects.toThrow(
    'permission denied for database',
  )
  await expect(query(devices.url, `set role cloudphone_${names.users}`)).rejects.toThrow('permission denied')
})

test('two processes that provision at once agree, and once more changes nothing', async () => {
  const [one, other] = await Promise.all([
    provision({ adminUrl, layout, log }),
    provision({ adminUrl, layout, log }),
  ])
  expect(one).toEqual(other)
  expect(serviceDatabases({ adminUrl, layout })).toEqual(one)
  const fingerprint = () =>
    query(
      adminUrl,
      `select rolpassword from pg_authid where rolname in ('cloudphone_${names.users}', 'cloudphone_${names.ledger}') order by rolname`,
    )
  const before = await fingerprint()
  expect(before).toHaveLength(2)
  expect(await provision({ adminUrl, layout, log })).toEqual(one)
  expect(await fingerprint()).toEqual(before)
  for (const service of Object.values(one)) {
    expect(await query(service.url, 'select current_database() as name')).toEqual([
      { name: service.database },
    ])
  }
})

test('another secret gives other passwords, and the old ones end', async () => {
  const before = serviceIn(await provision({ adminUrl, layout, log }), names.users)
  const after = serviceIn(await provision({ adminUrl, layout, roleSecret: 'another', log }), names.users)
  expect(after.url).not.toBe(before.url)
  await query(after.url, 'select 1')
  await expect(query(before.url, 'select 1')).rejects.toThrow('password authentication failed')
})

test('an administrator who is no superuser can provision', async () => {
  const admin = `manager_${names.core}`
  await query(adminUrl, `create role ${admin} login createdb createrole password 'managed'`)
  try {
    const managedUrl = retarget(adminUrl, { user: admin, password: 'managed' })
    const services = await provision({ adminUrl: managedUrl, layout, log })
    await provision({ adminUrl: managedUrl, layout, log })
    await query(serviceIn(services, names.devices).url, 'create table device (id int)')
  } finally {
    await withClient(adminUrl, 'test', async (client) => {
      for (const database of Object.keys(layout))
        await client.query(`drop database if exists ${database} with (force)`)
      for (const schema of Object.values(layout).flat())
        await client.query(`drop role if exists cloudphone_${schema}`)
      await client.query(`drop role ${admin}`)
    })
  }
})

test('a URL without a password and a layout with odd or double names are refused before anything is made', async () => {
  await expect(provision({ adminUrl: 'postgres://admin@localhost/postgres', layout, log })).rejects.toThrow(
    'has no password to derive',
  )
  await expect(provision({ adminUrl, layout: { a: ['x; drop'] }, log })).rejects.toThrow(
    '"x; drop" is not a name',
  )
  await expect(provision({ adminUrl, layout: { a: ['x'], b: ['x'] }, log })).rejects.toThrow(
    '"x" appears twice',
  )
})
