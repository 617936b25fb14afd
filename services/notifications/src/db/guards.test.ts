import { systemIds } from '@cloudphone/contracts/id'
import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { expect, test } from 'vitest'
import { insertNotification } from './notification-repo.ts'
import type { NotificationsSchema } from './schema.ts'

test('one notice per event and user', async () => {
  await using own = await createTestDatabase({
    schema: 'notifications',
    migrations: [APP_NOW_MIGRATIONS, new URL('./migrations/', import.meta.url)],
  })
  const database = openDatabase<NotificationsSchema>({
    url: own.url,
    schema: 'notifications',
    poolSize: 2,
    applicationName: 'guards',
    log: silentLog(),
  })
  try {
    const [ann, bob, event] = [systemIds.next(), systemIds.next(), systemIds.next()]
    const tell = (user_id: string) =>
      database.transaction((tx) =>
        insertNotification(tx, {
          ...{ id: systemIds.next(), tenant_id: null, user_id, type: 'device_failed', event_id: event },
          ...{ title: 'failed', message: 'it failed', data: {} },
          english: { title: 'failed', message: 'it failed' },
        }),
      )
    expect(await tell(ann)).toBe(true)
    expect(await tell(ann)).toBe(false)
    expect(await tell(bob)).toBe(true)
    const { rows } = await database.pool.query('select user_id from notification order by id')
    expect(rows).toEqual([{ user_id: ann }, { user_id: bob }])
  } finally {
    await database.close()
  }
})
