import { openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { expect, test } from 'vitest'
import { LEASE_MIGRATIONS, openLeases } from './open-leases.ts'

const log = silentLog()

test('who cannot renew has stopped when another may begin', async () => {
  await using place = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, LEASE_MIGRATIONS],
    schema: 'room',
  })
  /** The leases of a process whose pool has one connection. */
  const open = () => {
    const { url, schema } = place
    const database = openDatabase({ url, schema, poolSize: 1, applicationName: 'test', log })
    const executor = holdExecutor({ url, applicationName: 'test executor', log })
    const leases = openLeases({ database, executor, log, metrics: openMetrics('test'), ttlMs: 600 })
    const close = async () => {
      await leases.close()
      await executor.close()
      await database.close()
    }
    return { database, leases, close }
  }
  const [one, other] = [open(), open()]
  const gate = Promise.withResolvers<void>()
  const held = await one.leases.tryAcquire('sweep')
  // Its connection is kept busy: the renewal hangs, as on a network that swallows packets.
  const busy = one.database.transaction(async () => gate.promise)
  try {
    let taken = await other.leases.tryAcquire('sweep')
    while (taken === undefined) taken = await other.leases.tryAcquire('sweep')
    expect(held?.signal.aborted).toBe(true)
    expect(taken.epoch).toBe((held?.epoch ?? 0) + 1)
  } finally {
    gate.resolve()
    await busy
    await Promise.all([one.close(), other.close()])
  }
})
