import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { openDatabase } from './database.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

test('what comes again is prepared, on one connection, and prepared anew when its table has changed', async () => {
  await using place = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  await using database = openDatabase<unknown>({
    url: place.url,
    schema: 'room',
    poolSize: 1,
    applicationName: 'test',
    log: silentLog(),
  })
  const all = (statements: 'plain' | 'prepared') =>
    database.transaction(async (tx) => (await sql`select * from thing`.execute(tx)).rows, { statements })
  const prepared = async (): Promise<number> => {
    const { rows } = await sql<{ count: number }>`
      select count(*) as count from pg_prepared_statements where statement like '%from thing%'`.execute(
      database.kysely,
    )
    return rows[0]?.count ?? 0
  }
  await sql`create table thing as select 1 as one`.execute(database.kysely)
  for (const _ of [1, 2, 3, 4]) await all('plain')
  expect(await prepared()).toBe(0)
  for (const _ of [1, 2]) await all('prepared')
  expect(await prepared()).toBe(0)
  for (const _ of [3, 4]) expect(await all('prepared')).toEqual([{ one: 1 }])
  expect(await prepared()).toBe(1)
  await sql`alter table thing add two integer default 2`.execute(database.kysely)
  await expect(all('prepared')).rejects.toThrow('cached plan must not change result type')
  for (const _ of [1, 2, 3, 4]) expect(await all('prepared')).toEqual([{ one: 1, two: 2 }])
})
