import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { giveBackLeases, renewLeases, takeLeases } from './lease-rows.ts'
import { LEASE_MIGRATIONS } from './open-leases.ts'

test('who has lost a lease cannot renew it, nor give it back for its new holder', async () => {
  await using place = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, LEASE_MIGRATIONS],
    schema: 'room',
  })
  const log = silentLog()
  const database = openDatabase({ url: place.url, schema: 'room', poolSize: 1, applicationName: 'test', log })
  try {
    const db = database.kysely
    const claim = { name: 'sweep', ttlMs: 3_600_000 }
    // Nobody holds the lock of these executors, so each lease is free at once.
    const [lost] = await takeLeases(db, 'one', [claim])
    const [held] = await takeLeases(db, 'other', [claim])
    if (lost === undefined || held === undefined) throw new Error('not taken')
    const row = async () => (await sql`select holder, epoch, expires_at from lease`.execute(db)).rows[0]
    const before = await row()
    expect(await renewLeases(db, 'one', [{ ...claim, ...lost }])).toEqual(new Set())
    // Under its old epoch not even the same process.
    expect(await renewLeases(db, 'other', [{ ...claim, ...lost }])).toEqual(new Set())
    await giveBackLeases(db, 'one', [lost])
    expect(await row()).toEqual(before)
    expect(await renewLeases(db, 'other', [{ ...claim, ...held }])).toEqual(new Set(['sweep']))
  } finally {
    await database.close()
  }
})
