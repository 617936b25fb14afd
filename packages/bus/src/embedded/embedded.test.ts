import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { clientConfig } from '@cloudphone/db/target'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { busContract } from '../bus.contract.ts'
import { envelope, until } from '../contract/support.ts'
import { drillTopology } from '../drill/room.ts'
import { EMBEDDED_BUS_MIGRATIONS, type EmbeddedBusOptions, openEmbeddedBus } from './embedded-bus.ts'

busContract('embedded bus', async () => {
  const database = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  return {
    adapter: new URL('./drill-bus.ts', import.meta.url),
    settings: { url: database.url, schema: database.schema },
    close: () => database.drop(),
  }
})

describe('embedded bus, beyond the contract', () => {
  let database: TestDatabase
  const undo: (() => Promise<void> | void)[] = []
  beforeEach(async () => {
    database = await createTestDatabase({
      migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
      schema: 'bus',
    })
  })
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step()
    await database.drop()
  })
  const open = (options: Partial<EmbeddedBusOptions> = {}) => {
    const bus = openEmbeddedBus({
      url: database.url,
      log: silentLog(),
      metrics: openMetrics('test'),
      crash: crashPoints(''),
      subscriptions: drillTopology,
      ...options,
    })
    undo.push(() => bus.close())
    return bus
  }

  test('retries come after 1 s, 5 s and 60 s of the database; the next of the aggregate waits, others do not', async () => {
    const clock = testClock(database)
    const bus = open({ clock })
    await bus.declare()
    const got: string[] = []
    await bus.consume('devices.thing-moved', async ({ envelope: { subject, aggregateversion }, attempt }) => {
      got.push(`${subject}${aggregateversion} try ${attempt}`)
      if (subject === 'a' && aggregateversion === 1) return { verdict: 'retry', error: new Error('no') }
      return { verdict: 'done' }
    })
    const moved = (thing: string, version: number) => envelope('thing.moved', thing, version)
    await bus.publish([moved('a', 1), moved('a', 2), moved('b', 1)])
    await until(() => got.length === 2)
    await bus.idle()
    expect(got.splice(0).toSorted()).toEqual(['a1 try 1', 'b1 try 1'])
    for (const [seconds, attempt] of [
      [1, 2],
      [5, 3],
    ] as const) {
      await clock.whenSleeping(1)
      await clock.advance(seconds * 1_000 - 200)
      await bus.idle()
      expect(got).toEqual([])
      await clock.advance(1_200)
      await until(() => got.length === 1)
      await bus.idle()
      expect(got.splice(0)).toEqual([`a1 try ${attempt}`])
    }
    await clock.advance(61_000)
    await until(() => got.length === 2)
    expect(got).toEqual(['a1 try 4', 'a2 try 1'])
    await until(async () => (await bus.deadLetters.list()).length === 1)
  })

  test('what a silent consumer has in hand goes to another; what it does later changes nothing', async () => {
    const frozen = open({ consumerTtlMs: 3_600_000 })
    await frozen.declare()
    const gate = Promise.withResolvers<void>()
    const inHand = Promise.withResolvers<void>()
    await frozen.consume('devices.thing-moved', async () => {
      inHand.resolve()
      await gate.promise
      return { verdict: 'retry', error: new Error('too late') }
    })
    await frozen.publish([envelope('thing.moved', 'a', 1)])
    await inHand.promise
    const other = open()
    const again = Promise.withResolvers<number>()
    await other.consume('devices.thing-moved', async ({ attempt }) => {
      again.resolve(attempt)
      return { verdict: 'done' }
    })
    const client = new pg.Client(clientConfig(database.url, 'test'))
    await client.connect()
    undo.push(() => client.end())
    // As if it had not beaten for its ttl.
    await client.query(
      'update bus.bus_consumer set expires_at = clock_timestamp() where executor in (select claimed_by from bus.bus_delivery)',
    )
    expect(await again.promise).toBe(1)
    await other.idle()
    gate.resolve()
    await frozen.idle()
    expect(await other.statistics()).toContainEqual({
      queue: 'devices.thing-moved',
      ready: 0,
      delayed: 0,
      inFlight: 0,
      dead: 0,
    })
  })

  test('a delivery whose consumers keep dying is buried', async () => {
    const bus = open()
    await bus.declare()
    await bus.publish([envelope('thing.seen', 'a', 1)])
    const client = new pg.Client(clientConfig(database.url, 'test'))
    await client.connect()
    undo.push(() => client.end())
    await client.query("update bus.bus_delivery set abandoned = 19, claimed_by = 'dead'")
    const got: unknown[] = []
    const other = open()
    await other.consume('notifications.thing-seen', async (delivery) => {
      got.push(delivery)
      return { verdict: 'done' }
    })
    await until(async () => (await bus.deadLetters.list()).length === 2)
    // Also the informational one: it may be innocent, and a dead letter can be replayed.
    expect(await bus.deadLetters.list({ queue: 'notifications.thing-seen' })).toMatchObject([
      { error: 'its consumer died 20 times with it in hand' },
    ])
    expect(got).toEqual([])
  })

  test('what was three times in the hands of the dead is claimed one at a time: who kills is found', async () => {
    const bus = open()
    await bus.declare()
    await bus.publish(Array.from({ length: 5 }, (_, at) => envelope('thing.moved', `thing ${at}`, 1)))
    const client = new pg.Client(clientConfig(database.url, 'test'))
    await client.connect()
    undo.push(() => client.end())
    await client.query('update bus.bus_delivery set abandoned = 3')
    const claimed = async (): Promise<unknown> =>
      (
        await client.query(
          "select count(*)::int as n from bus.bus_delivery where queue = 'devices.thing-moved' and claimed_by is not null",
        )
      ).rows[0]?.n
    const inHand: unknown[] = []
    let batches = 0
    await bus.consume(
      'devices.thing-moved',
      async () => {
        inHand.push(await claimed())
        return { verdict: 'done' }
      },
      {
        prefetch: 100,
        together: async (deliveries) => {
          batches += 1
          return deliveries.map(() => 'alone')
        },
      },
    )
    await bus.idle()
    expect(inHand).toEqual([1, 1, 1, 1, 1])
    expect(batches).toBe(0)
  })
})
