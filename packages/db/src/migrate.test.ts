import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { withClient } from './client.ts'
import { APP_NOW_MIGRATIONS, migrate } from './migrate.ts'

let home: TestDatabase
let root: string
let schemas = 0
let schema: string

beforeAll(async () => {
  home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
})
afterAll(() => home.drop())
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'migrate-'))
  schemas += 1
  schema = `s${schemas}`
})
afterEach(() => rm(root, { recursive: true, force: true }))

/** Writes a package with migrations; answers its folder. */
async function packageWith(name: string, files: Record<string, string>): Promise<URL> {
  const folder = join(root, name.replaceAll('/', '_'), 'src/db/migrations')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, '../../../package.json'), JSON.stringify({ name }))
  for (const [file, sql] of Object.entries(files)) await writeFile(join(folder, file), sql)
  return pathToFileURL(folder)
}

const up = (...directories: URL[]) => migrate({ url: home.url, schema, directories, log: silentLog() })
const query = (sql: string) =>
  withClient(home.url, 'test', async (client) => {
    await client.query(`set search_path to ${schema}`)
    return (await client.query(sql)).rows
  })

test('folders apply in order, once, into the schema, named by their package', async () => {
  const kernel = await packageWith('@cloudphone/saga', {
    '0001-saga.sql': 'create table saga (at timestamptz default app_now())',
  })
  const service = await packageWith('@cloudphone/devices', {
    '0002-more.sql': 'alter table device add column name text',
    '0001-devices.sql': 'create table device (saga int); insert into saga default values;',
  })
  const first = await up(APP_NOW_MIGRATIONS, kernel, service)
  expect(first.applied).toEqual([
    'db/0001-app-now.sql',
    'saga/0001-saga.sql',
    'devices/0001-devices.sql',
    'devices/0002-more.sql',
  ])
  expect((await up(APP_NOW_MIGRATIONS, kernel, service)).applied).toEqual([])
  expect(await query('select name, saga from device')).toEqual([])
  expect(await query('select count(*)::int as n from saga where at is not null')).toEqual([{ n: 1 }])
})

test('a new file applies on its own; an edited one is refused by name', async () => {
  const folder = await packageWith('p', { '0001-one.sql': 'create table one ()' })
  await up(folder)
  await packageWith('p', { '0002-two.sql': 'create table two ()' })
  expect((await up(folder)).applied).toEqual(['p/0002-two.sql'])
  // Line ends of a Windows checkout are not an edit.
  await packageWith('p', { '0003-three.sql': 'create table three\n()\n' })
  await up(folder)
  await packageWith('p', { '0003-three.sql': 'create table three\r\n()\r\n' })
  expect((await up(folder)).applied).toEqual([])
  await packageWith('p', { '0001-one.sql': 'create table one (id int)' })
  await expect(up(folder)).rejects.toThrow(
    /Migration p\/0001-one\.sql was edited after it was applied to schema s\d/,
  )
})

test('a database newer than the code is left alone', async () => {
  const folder = await packageWith('p', {
    '0001-one.sql': 'create table one ()',
    '0002-two.sql': 'create table two ()',
  })
  await up(folder)
  await rm(new URL(`${folder.href}/0002-two.sql`))
  expect((await up(folder)).applied).toEqual([])
  expect(await query('select name from schema_migrations order by name')).toHaveLength(2)
})

test('a file numbered before an applied one is refused, and so is a number used twice', async () => {
  const folder = await packageWith('p', { '0002-two.sql': 'create table two ()' })
  await up(folder)
  await packageWith('p', { '0001-late.sql': 'create table late ()' })
  await expect(up(folder)).rejects.toThrow('p/0001-late.sql is new, but p/0002-two.sql is already applied')
  await rm(new URL(`${folder.href}/0001-late.sql`))
  await packageWith('p', { '0002-again.sql': 'select 1' })
  await expect(up(folder)).rejects.toThrow('its number is taken')
  await rm(new URL(`${folder.href}/0002-again.sql`))
  await packageWith('p', { 'Three.sql': 'select 1' })
  await expect(up(folder)).rejects.toThrow('name it like 0001-some-words.sql')
})

test('a failing file leaves nothing of itself, and what came before stays', async () => {
  const folder = await packageWith('p', {
    '0001-one.sql': 'create table one ()',
    '0002-bad.sql': 'create table bad (); select 1/0;',
  })
  await expect(up(folder)).rejects.toThrow(
    /Migration p\/0002-bad\.sql failed on schema s\d+: division by zero/,
  )
  expect(await query('select name from schema_migrations')).toEqual([{ name: 'p/0001-one.sql' }])
  await expect(query('select * from bad')).rejects.toThrow('does not exist')
})

test('processes that migrate at the same moment apply each file once', async () => {
  const folder = await packageWith('p', {
    '0001-one.sql': 'create table one ()',
    '0002-two.sql': 'create table two ()',
  })
  const results = await Promise.all([up(folder), up(folder), up(folder), up(folder)])
  expect(results.flatMap(({ applied }) => applied).toSorted()).toEqual(['p/0001-one.sql', 'p/0002-two.sql'])
})
