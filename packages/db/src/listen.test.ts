import { silentLog } from '@cloudphone/observe/log'
import { fakeClock } from '@cloudphone/testing/fake-clock'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { afterCommit, type Database, openDatabase } from './database.ts'
import { listener, notifier } from './listen.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

let home: TestDatabase
let db: Database<object>
const log = silentLog()

beforeAll(async () => {
  home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  db = openDatabase({ url: home.url, schema: 'room', poolSize: 2, applicationName: 'listen.test', log })
})
afterAll(async () => {
  await db.close()
  await home.drop()
})

/** Counts notifications and lets a test wait for the next. */
function inbox() {
  const counts = new Map<string, number>()
  let arrived = Promise.withResolvers<void>()
  return {
    onNotify(channel: string) {
      counts.set(channel, (counts.get(channel) ?? 0) + 1)
      arrived.resolve()
      arrived = Promise.withResolvers()
    },
    count: (channel: string) => counts.get(channel) ?? 0,
    async until(condition: () => boolean) {
      while (!condition()) await arrived.promise
    },
  }
}

const cut = (applicationName: string) =>
  sql`select pg_terminate_backend(pid) from pg_stat_activity
    where application_name = ${applicationName} and datname = current_database()`.execute(db.kysely)

test('a commit wakes the listener, once for many hooks; a rollback does not', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['work', 'other'],
    ...heard,
    applicationName: 'ears',
    log,
  })
  await using bell = notifier({ url: db.directUrl, applicationName: 'bell', log })
  await ears.listening()
  // One each, for what may have been missed before.
  expect([heard.count('work'), heard.count('other')]).toEqual([1, 1])

  await expect(
    db.transaction(async (tx) => {
      afterCommit(tx, () => bell.notify('other'))
      throw new Error('rolled back')
    }),
  ).rejects.toThrow('rolled back')
  await db.transaction(async (tx) => {
    for (let row = 0; row < 50; row += 1) afterCommit(tx, () => bell.notify('work'))
  })
  await bell.drained()
  bell.notify('end')
  await heard.until(() => heard.count('work') === 2)
  expect(heard.count('other')).toBe(1)
})

/** The sender between two wake-ups, and the session that waits to ask whether the server is still there. */
const ASLEEP = 2

test('under a storm of wake-ups, one goes out at once and then one per 5 ms', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['storm', 'end'],
    ...heard,
    applicationName: 'ears',
    log,
  })
  const clock = fakeClock()
  await using bell = notifier({ url: db.directUrl, applicationName: 'bell', log, clock })
  await ears.listening()
  const storm = (): void => {
    for (let call = 0; call < 100; call += 1) bell.notify('storm')
  }
  storm()
  await clock.whenSleeping(ASLEEP)
  await heard.until(() => heard.count('storm') === 2)
  for (const sent of [3, 4]) {
    storm()
    await clock.advance(5)
    await clock.whenSleeping(ASLEEP)
    await heard.until(() => heard.count('storm') === sent)
  }
  await clock.advance(5)
  bell.notify('end')
  await clock.whenSleeping(ASLEEP)
  await heard.until(() => heard.count('end') === 2)
  expect(heard.count('storm')).toBe(4)
  await clock.advance(5)
  await bell.drained()
})

test('a wake-up asked for at the very moment at which the sender finds no more is sent', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['late'],
    ...heard,
    applicationName: 'ears',
    log,
  })
  const clock = fakeClock()
  await using bell = notifier({ url: db.directUrl, applicationName: 'bell', log, clock })
  await ears.listening()
  for (let turns = 0; turns < 12; turns += 1) {
    bell.notify('first')
    await clock.whenSleeping(ASLEEP)
    const passed = clock.advance(5)
    for (let turn = 0; turn < turns; turn += 1) await Promise.resolve()
    bell.notify('late')
    await passed
    await heard.until(() => heard.count('late') === turns + 2)
    await clock.whenSleeping(ASLEEP)
    await clock.advance(5)
    await bell.drained()
  }
})

test('a listener whose connection is cut listens again, and is told to look', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['lost'],
    ...heard,
    applicationName: 'cut ears',
    log,
  })
  await ears.listening()
  expect(heard.count('lost')).toBe(1)
  await cut('cut ears')
  await heard.until(() => heard.count('lost') === 2)
  await ears.listening()
  await sql`select pg_notify('lost', 'x')`.execute(db.kysely)
  await heard.until(() => heard.count('lost') === 3)
})

test('a notifier whose connection is cut sends on the next one', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['again'],
    ...heard,
    applicationName: 'ears',
    log,
  })
  await using bell = notifier({ url: db.directUrl, applicationName: 'cut bell', log })
  await ears.listening()
  bell.notify('again')
  await heard.until(() => heard.count('again') === 2)
  await cut('cut bell')
  bell.notify('again')
  await heard.until(() => heard.count('again') === 3)
})

test('a notifier that is closed sends what it was asked for before', async () => {
  const heard = inbox()
  await using ears = listener({
    url: db.directUrl,
    channels: ['last'],
    ...heard,
    applicationName: 'ears',
    log,
  })
  const bell = notifier({ url: db.directUrl, applicationName: 'bell', log })
  await ears.listening()
  bell.notify('last')
  await heard.until(() => heard.count('last') === 2)
  bell.notify('last')
  await bell.close()
  await heard.until(() => heard.count('last') === 3)
})
