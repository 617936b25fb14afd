import { systemIds } from '@cloudphone/contracts/id'
import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { expect, test } from 'vitest'
import { findFirst, insertInstallation, type NewInstallation } from './installation-repo.ts'
import type { AppsSchema } from './schema.ts'

test('a request is one installation for ever, also when that has ended', async () => {
  await using own = await createTestDatabase({
    schema: 'apps',
    migrations: [APP_NOW_MIGRATIONS, new URL('./migrations/', import.meta.url)],
  })
  const log = silentLog()
  const at = { url: own.url, schema: 'apps', poolSize: 1, applicationName: 'guards', log }
  const database = openDatabase<AppsSchema>(at)
  const facts = {
    request_key: 'the same',
    tenant_id: systemIds.next<'tenant'>(),
    app_id: systemIds.next<'app'>(),
    device_id: systemIds.next<'device'>(),
    user_id: systemIds.next<'user'>(),
    package_name: 'com.example',
    allocation_id: null,
    fence: 0,
  }
  const wanted = (): NewInstallation => ({ ...facts, id: systemIds.next<'installation'>() })
  try {
    const first = await database.transaction((tx) => insertInstallation(tx, wanted()))
    await database.pool.query("update installations set status = 'installed', ended_at = app_now()")
    const again = await database.transaction(async (tx) => [
      await insertInstallation(tx, wanted()),
      await findFirst(tx, wanted()),
    ])
    expect(again).toMatchObject([undefined, { id: first?.id, status: 'installed' }])
  } finally {
    await database.close()
  }
})
