import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { expect, it } from 'vitest'
import { SAGA_MIGRATIONS } from './engine.ts'

it('sagas are found by id, status, deadline and for recovery without reading the table', async () => {
  await using town = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS],
    schema: 'saga',
  })
  await using database = openDatabase({
    ...{ url: town.url, schema: 'saga', poolSize: 1, applicationName: 'test', log: silentLog() },
  })
  const { rows } = await sql<{ indexname: string }>`
    select indexname from pg_indexes where schemaname = 'saga' and tablename = 'saga_state'`.execute(
    database.kysely,
  )
  expect(rows.map(({ indexname }) => indexname)).toEqual(
    expect.arrayContaining([
      'idx_saga_state_saga_id',
      'idx_saga_state_status',
      'idx_saga_state_timeout',
      'idx_saga_state_recovery',
    ]),
  )
  // With a table that is not tiny the planner must use them: here it is forbidden to read the table through.
  await sql`set enable_seqscan = off`.execute(database.kysely)
  const plan = await sql<{ 'QUERY PLAN': string }>`
    explain select * from saga_state where status = 'COMPENSATION_STUCK'`.execute(database.kysely)
  expect(plan.rows.map((row) => row['QUERY PLAN']).join('\n')).toContain('idx_saga_state_status')
})
