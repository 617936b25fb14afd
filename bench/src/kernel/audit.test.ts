import { randomUUID } from 'node:crypto'
import { withClient } from '@cloudphone/db/client'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { auditEffects, auditOrder, makeEffectTable, moveOf, THINGS } from './contenders/event-order.ts'
import { truncate } from './contenders/tables.ts'

let place: TestDatabase
beforeEach(async () => {
  place = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  await makeEffectTable(place.url, 'room')
})
afterEach(() => place.drop())

async function write(effects: readonly { id: string; thing: string; version: number }[]): Promise<void> {
  await withClient(place.url, 'test', async (client) => {
    for (const { id, thing, version } of effects)
      await client.query('insert into effect (event_id, thing, version) values ($1, $2, $3)', [
        id,
        thing,
        version,
      ])
  })
}

const moves = (count: number) => Array.from({ length: count }, (_, n) => ({ id: randomUUID(), ...moveOf(n) }))

test('a round whose every effect happened once, in order, counts', async () => {
  await write(moves(THINGS + 3))
  await auditEffects(place.url, 'room', THINGS + 3)
  await auditOrder(place.url, 'room')
})

test('a round that lost one is void', async () => {
  await write(moves(3).slice(1))
  await expect(auditEffects(place.url, 'room', 3)).rejects.toThrow('void: effects: 2 instead of 3')
})

test('a round that did one twice is void, also when the count is right because another is lost', async () => {
  const [one, two] = moves(3)
  if (one === undefined || two === undefined) throw new Error('no moves')
  await write([one, two, two])
  await expect(auditEffects(place.url, 'room', 3)).rejects.toThrow('events with an effect: 2 instead of 3')
})

test('a round in which one overtook another of its aggregate is void', async () => {
  const [first, second] = [moveOf(0), moveOf(THINGS)]
  await write([
    { id: randomUUID(), ...second },
    { id: randomUUID(), ...first },
  ])
  await expect(auditOrder(place.url, 'room')).rejects.toThrow('2 effects out of order')
})

test('what is kept outlives the emptying of a schema', async () => {
  await write(moves(2))
  await truncate(place.url, { schema: 'room', keep: ['effect', 'schema_migrations', 'test_clock'] })
  await auditEffects(place.url, 'room', 2)
  await truncate(place.url, { schema: 'room', keep: ['schema_migrations', 'test_clock'] })
  await auditEffects(place.url, 'room', 0)
})
