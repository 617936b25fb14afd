import { systemIds } from '@cloudphone/contracts/id'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { openBooks } from '../testing/books.ts'
import { lockMeter } from './usage-repo.ts'

test('facts about one phone queue up', async () => {
  await using books = await openBooks()
  const { database } = books
  const [deviceId, another] = [systemIds.next<'device'>(), systemIds.next<'device'>()]
  await lockMeter(database.kysely, deviceId)
  await database.transaction(async (tx) => {
    await lockMeter(tx, deviceId)
    const second = (id: typeof deviceId) =>
      database.transaction(async (other) => {
        await sql`set local lock_timeout = '100ms'`.execute(other)
        await lockMeter(other, id)
      })
    await expect(second(deviceId)).rejects.toThrow('lock timeout')
    await second(another)
  })
})
