import { defineEvent } from '@cloudphone/contracts/event'
import { openDatabase } from '@cloudphone/db/database'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { systemClock } from '@cloudphone/observe/clock'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import type { Delivery } from './bus.ts'
import { consumerMetrics } from './consumer-metrics.ts'
import { envelope } from './contract/support.ts'
import { on } from './handler.ts'
import { INBOX_MIGRATIONS } from './inbox.ts'
import { receive } from './receive.ts'
import { receiveBatch } from './receive-batch.ts'

const QUEUE = 'scheduler.thing'

const Moved = defineEvent({
  name: 'thing.moved',
  version: 1,
  aggregate: 'thing',
  description: 'A thing moved.',
  payload: z.object({ note: z.string() }),
})

/** A service with a table of effects; `handle` comes after each effect, in its transaction. */
async function openRoom(handle: (subject: string, version: number) => void) {
  const place = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, INBOX_MIGRATIONS],
    schema: 'room',
  })
  const log = silentLog()
  const database = openDatabase({ url: place.url, schema: 'room', poolSize: 2, applicationName: 'test', log })
  await sql`create table effect (position bigint generated always as identity, what text)`.execute(
    database.kysely,
  )
  const handler = on(Moved, async (tx, { subject, aggregateVersion }) => {
    await sql`insert into effect (what) values (${`${subject}${aggregateVersion}`})`.execute(tx)
    handle(subject, aggregateVersion)
  })
  const read = async (query: ReturnType<typeof sql<{ what: string }>>) =>
    (await query.execute(database.kysely)).rows.map(({ what }) => what)
  return {
    options: {
      queue: QUEUE,
      database,
      handlers: new Map([[Moved.name, { definition: Moved, handler }]]),
      log,
      counts: consumerMetrics(openMetrics('test'), 'scheduler'),
      crash: crashPoints(''),
      clock: systemClock,
      closing: new AbortController().signal,
    },
    effects: () => read(sql`select what from effect order by position`),
    entered: () => read(sql`select event_id as what from inbox`),
    async [Symbol.asyncDispose]() {
      await database.close()
      await place.drop()
    },
  }
}

const delivered = (thing: string, version: number): Delivery => ({
  queue: QUEUE,
  envelope: envelope(Moved.name, thing, version),
  attempt: 1,
})

test('effect and inbox row are committed together, before the event is done', async () => {
  let broken = true
  await using room = await openRoom(() => {
    if (broken) throw new Error('after its effect')
  })
  const handle = receive(room.options)
  const delivery = delivered('a', 1)
  expect(await handle(delivery)).toMatchObject({ verdict: 'retry' })
  expect([await room.effects(), await room.entered()]).toEqual([[], []])
  broken = false
  for (const _ of ['once', 'and again']) {
    expect(await handle(delivery)).toEqual({ verdict: 'done' })
    expect([await room.effects(), await room.entered()]).toEqual([['a1'], [delivery.envelope.id]])
  }
})

test('in a batch, what is behind the event that fails waits for it, and others do not', async () => {
  await using room = await openRoom((subject, version) => {
    if (subject === 'a' && version === 2) throw new Error('not now')
  })
  const batch = [delivered('a', 1), delivered('a', 2), delivered('a', 3), delivered('b', 1)]
  expect(await receiveBatch(room.options)(batch)).toEqual(['done', 'alone', 'alone', 'done'])
  expect(await room.effects()).toEqual(['a1', 'b1'])
  expect(await room.entered()).toHaveLength(2)
})
