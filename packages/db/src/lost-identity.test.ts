import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { expect, test } from 'vitest'
import { withClient } from './client.ts'
import { holdExecutor } from './executor.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

test('from the moment at which its connection is lost an executor has no identity to claim under', async () => {
  await using home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  await using executor = holdExecutor({ url: home.url, applicationName: 'lost executor', log: silentLog() })
  const { id, lost } = await executor.held()
  const identityThen = new Promise<string | undefined>((resolve) => {
    lost.addEventListener('abort', () => resolve(executor.current?.id), { once: true })
  })
  await withClient(home.url, 'test', (client) =>
    client.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where application_name = 'lost executor' and datname = current_database()`,
    ),
  )
  expect(await identityThen).toBeUndefined()
  expect((await executor.held()).id).not.toBe(id)
})
