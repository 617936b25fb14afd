import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { clientConfig } from '@cloudphone/db/target'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { fact, OUTBOX_MIGRATIONS } from '@cloudphone/outbox/open-outbox'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { ChildOrder } from '../drill/child.ts'
import { EFFECTS_TABLE, type OpenDrillBus, type Room, startRoom, ThingMoved } from '../drill/room.ts'
import { INBOX_MIGRATIONS } from '../inbox.ts'
import { type BusHarness, retryDelaysMs, type Undo, until } from './support.ts'

const things = ['a', 'b', 'c', 'd', 'e', 'f']

/** Processes that die at every place between a business transaction and its effect elsewhere. */
export function kills(harness: () => BusHarness, undo: Undo): void {
  let service: TestDatabase
  beforeEach(async () => {
    service = await createTestDatabase({
      migrations: [APP_NOW_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS],
      schema: 'room',
    })
    await query(service, EFFECTS_TABLE)
  })
  afterEach(async () => {
    for (const step of undo.splice(0).reverse()) await step()
    await service.drop()
  })

  const room = async (): Promise<Room> => {
    const { openDrillBus }: { openDrillBus: OpenDrillBus } = await import(harness().adapter.href)
    const options = { log: silentLog(), crash: crashPoints('') }
    const bus = await openDrillBus({
      ...options,
      settings: harness().settings,
      metrics: openMetrics('test'),
      retryDelaysMs,
    })
    const started = await startRoom({ ...options, bus, url: service.url, schema: service.schema })
    undo.push(() => started.close())
    return started
  }

  test.each([
    'outbox.after_claim=kill',
    'bus.after_insert@2=kill',
    'outbox.after_publish@2=kill',
    'outbox.after_mark=kill',
    'consumer.before_tx@3=kill',
    'consumer.in_tx@5=kill',
    'consumer.after_commit@7=kill',
  ])('after %s each event has its effect in each queue exactly once, in order', async (crash) => {
    const child = await startChild(undo, {
      adapter: harness().adapter.href,
      settings: harness().settings,
      url: service.url,
      schema: service.schema,
      crash,
    })
    const survivor = await room()
    let signal: unknown
    child.once('exit', (_code, by) => {
      signal = by
    })
    // While both live, until the one has died, and twice afterwards.
    let version = 0
    for (let afterwards = 0; afterwards < 2; ) {
      version += 1
      const payload = { note: 'moved' }
      await survivor.database.transaction((tx) =>
        survivor.outbox.addMany(
          tx,
          things.map((aggregateId) => fact(ThingMoved, { aggregateId, aggregateVersion: version, payload })),
        ),
      )
      // Not all in one batch, or a point would be passed once only.
      await survivor.relay.drain()
      if (signal !== undefined) afterwards += 1
    }
    expect(signal).toBe('SIGKILL')
    const effects = await until(async () => {
      const rows = await query<Effect>(service, 'select queue, thing, version from effect order by position')
      return rows.length >= things.length * 2 * version ? rows : undefined
    })
    const counts = Map.groupBy(effects, ({ queue, thing }) => `${queue} ${thing}`)
    expect(counts.size).toBe(things.length * 2)
    const inOrder = Array.from({ length: version }, (_, at) => at + 1)
    for (const own of counts.values()) expect(own.map((effect) => effect.version)).toEqual(inOrder)
  })
}

interface Effect {
  readonly queue: string
  readonly thing: string
  readonly version: number
}

async function startChild(undo: Undo, order: ChildOrder) {
  const script = fileURLToPath(new URL('../drill/child.ts', import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(order)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  undo.push(() => {
    child.kill('SIGKILL')
  })
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'exit').then(() => Promise.reject(new Error('the child did not start'))),
  ])
  return child
}

async function query<Row extends pg.QueryResultRow>(database: TestDatabase, text: string): Promise<Row[]> {
  const client = new pg.Client(clientConfig(database.url, 'test'))
  await client.connect()
  try {
    return (await client.query<Row>(text)).rows
  } finally {
    await client.end()
  }
}
