import { withClient } from '@cloudphone/db/client'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import type pg from 'pg'
import { expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase, testClock } from './postgres.ts'

const options = { migrations: [APP_NOW_MIGRATIONS], schema: 'room' }

async function query<Row extends pg.QueryResultRow>(database: TestDatabase, sql: string): Promise<Row[]> {
  return await withClient(database.url, 'test', async (client) => (await client.query<Row>(sql)).rows)
}

test('databases are made side by side from one template and share nothing', async () => {
  const [one, other] = await Promise.all([createTestDatabase(options), createTestDatabase(options)])
  await query(one, 'create table only_here (id int)')
  await expect(query(other, 'select * from only_here')).rejects.toThrow('does not exist')
  expect(await query(one, 'select current_schema() as schema')).toEqual([{ schema: 'room' }])
  await Promise.all([one.drop(), other.drop()])
  await one.drop()
  await expect(query(one, 'select 1')).rejects.toThrow('does not exist')
})

test('a clone costs little', async () => {
  await using first = await createTestDatabase(options)
  const startedMs = performance.now()
  await using second = await createTestDatabase(options)
  expect(second.database).not.toBe(first.database)
  // About 20 ms on an idle machine; making one from nothing takes ten times as long.
  expect(performance.now() - startedMs).toBeLessThan(2_000)
})

test('the test clock moves app_now() and JavaScript together', async () => {
  await using database = await createTestDatabase(options)
  const clock = testClock(database)
  const before = clock.now()
  const hour = 3_600_000
  const asleep = clock
    .sleep(hour)
    .then(() =>
      query<{ due: boolean }>(
        database,
        `select app_now() >= '${new Date(before.getTime() + hour).toISOString()}'::timestamptz as due`,
      ),
    )
  await clock.advance(hour)
  expect(await asleep).toEqual([{ due: true }])
  expect(clock.now().getTime() - before.getTime()).toBe(hour)
  const [row] = await query<{ ahead_s: number }>(
    database,
    'select round(extract(epoch from app_now() - now()))::int as ahead_s',
  )
  expect(row).toEqual({ ahead_s: 3_600 })
})
