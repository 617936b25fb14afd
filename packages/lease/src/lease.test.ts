import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { createTestDatabase, type TestDatabase, testClock } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { runOncePerTick } from './cron-run.ts'
import type { HeldLease, Leases } from './lease.ts'
import { underEpoch } from './lease-rows.ts'
import { LEASE_MIGRATIONS, type LeasesOptions, openLeases } from './open-leases.ts'

let place: TestDatabase
let database: Database<unknown>
beforeEach(async () => {
  place = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS, LEASE_MIGRATIONS], schema: 'room' })
  database = openDatabase({
    url: place.url,
    schema: place.schema,
    poolSize: 5,
    applicationName: 'test',
    log: silentLog(),
  })
})
// Undone in reverse, while the database is still there.
const undo: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
  await database.close()
  await place.drop()
})

interface Process {
  leases: Leases
  executor: Executor
  metrics: ReturnType<typeof openMetrics>
}

/** What one process holds; several may live in this one. */
function start(options: Partial<LeasesOptions> = {}): Process {
  const log = silentLog()
  const metrics = openMetrics('test')
  const executor = holdExecutor({ url: place.url, applicationName: 'test executor', log })
  const leases = openLeases({ database, executor, log, metrics, ...options })
  undo.push(async () => {
    await leases.close()
    await executor.close()
  })
  return { leases, executor, metrics }
}

/** Runs a loop and hands out the lease of each turn. */
function watch(leases: Leases, name: string, everyMs = 10) {
  const turns: HeldLease[] = []
  let next = Promise.withResolvers<HeldLease>()
  const loop = leases.loop({
    name,
    everyMs,
    work: async (lease) => {
      turns.push(lease)
      next.resolve(lease)
      next = Promise.withResolvers()
    },
  })
  return { loop, turns, nextTurn: () => next.promise }
}

async function child(name: string): Promise<{ process: ChildProcess; lines: AsyncIterator<string> }> {
  const script = fileURLToPath(new URL('./drill-child.ts', import.meta.url))
  const process_ = spawn(process.execPath, [script, place.url, place.schema, name], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  undo.push(() => {
    process_.kill('SIGKILL')
  })
  const lines = createInterface({ input: process_.stdout })[Symbol.asyncIterator]()
  expect((await lines.next()).value).toBe('turn 1')
  return { process: process_, lines }
}

test('a loop runs in one process only; given back, it goes on in another under a higher epoch', async () => {
  const [one, other] = [start(), start()]
  const first = watch(one.leases, 'sweep')
  const held = await first.nextTurn()
  const second = watch(other.leases, 'sweep')
  await second.loop.nudge()
  expect(second.turns).toEqual([])
  await first.loop.stop()
  expect(held.signal.aborted).toBe(true)
  expect((await second.nextTurn()).epoch).toBe(held.epoch + 1)
})

test('after kill -9 another process takes over in under 2 s', async () => {
  const { process: holder } = await child('sweep')
  const { leases } = start()
  const here = watch(leases, 'sweep')
  await here.loop.nudge()
  expect(here.turns).toEqual([])
  const killedAtMs = performance.now()
  holder.kill('SIGKILL')
  const { epoch } = await here.nextTurn()
  expect(performance.now() - killedAtMs).toBeLessThan(2_000)
  expect(epoch).toBe(2)
})

test('a frozen holder is replaced after its ttl, and stops by itself when it thaws', async () => {
  const { process: holder, lines } = await child('sweep')
  const { leases } = start()
  const here = watch(leases, 'sweep')
  const frozenAtMs = performance.now()
  holder.kill('SIGSTOP')
  expect((await here.nextTurn()).epoch).toBe(2)
  expect(performance.now() - frozenAtMs).toBeLessThan(4_000)
  holder.kill('SIGCONT')
  for (let line = await lines.next(); line.value !== 'lost'; line = await lines.next()) {
    expect(line.value).toBe('turn 1')
  }
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await here.loop.nudge()
  expect(here.turns.at(-1)?.epoch).toBe(2)
})

test('the write of a replaced holder is refused by its epoch', async () => {
  const { leases, executor } = start()
  const held = await leases.tryAcquire('sweep')
  if (held === undefined) throw new Error('the lease was not free')
  const guarded = async (): Promise<boolean> =>
    (await sql<{ allowed: boolean }>`select ${underEpoch(held)} as allowed`.execute(database.kysely)).rows[0]!
      .allowed
  expect(await guarded()).toBe(true)
  await executor.close()
  const later = await start().leases.tryAcquire('sweep')
  expect(later?.epoch).toBe(held.epoch + 1)
  expect(held.signal.aborted).toBe(true)
  expect(await guarded()).toBe(false)
})

test('a holder cut off from the database stops at its trust deadline, before others may begin', async () => {
  // Its pool has one connection, and that is kept busy: the renewal hangs, as on a network that swallows packets.
  const narrow = openDatabase({
    url: place.url,
    schema: place.schema,
    poolSize: 1,
    applicationName: 'narrow',
    log: silentLog(),
  })
  undo.push(() => narrow.close())
  const { leases } = start({ database: narrow, ttlMs: 600 })
  const held = await leases.tryAcquire('sweep')
  const gate = Promise.withResolvers<void>()
  const busy = narrow.transaction(async () => gate.promise)
  undo.push(async () => {
    gate.resolve()
    await busy
  })
  await once(held!.signal, 'abort')
  const other = start()
  const taken = await other.leases.tryAcquire('sweep')
  // Either not yet free or free since: the holder had stopped before.
  expect(taken?.epoch ?? 2).toBe(2)
  const { rows } = await sql<{ over: boolean }>`
    select expires_at < clock_timestamp() + interval '60 ms' as over from lease where name = 'sweep'`.execute(
    database.kysely,
  )
  expect(rows).toEqual(taken === undefined ? [{ over: true }] : [{ over: false }])
})

test('a failing turn is counted and the next one runs', async () => {
  const { leases, metrics } = start()
  let turns = 0
  const second = Promise.withResolvers<void>()
  leases.loop({
    name: 'sweep',
    everyMs: 5,
    async work() {
      turns += 1
      if (turns === 1) throw new Error('stumbled')
      second.resolve()
    },
  })
  await second.promise
  expect(await metrics.render()).toMatch(/lease_loop_failures_total{loop="sweep".*} 1/)
})

test('a nudge runs a turn at once and waits for it', async () => {
  const { leases } = start()
  const { loop, turns, nextTurn } = watch(leases, 'rare', 3_600_000)
  if (turns.length === 0) await nextTurn()
  await loop.nudge()
  await loop.nudge()
  expect(turns).toHaveLength(3)
})

test('turns keep their grid by the injected clock', async () => {
  const clock = testClock(place)
  const { leases } = start({ clock })
  const { turns, nextTurn } = watch(leases, 'hourly', 3_600_000)
  if (turns.length === 0) await nextTurn()
  await clock.whenSleeping(1)
  await clock.advance(3_599_999)
  expect(turns).toHaveLength(1)
  await clock.advance(1)
  await clock.whenSleeping(1)
  // Three periods at once are caught up by their own turns on a moved clock, and leases are not lost by the move.
  expect(turns).toHaveLength(2)
  expect(new Set(turns.map(({ epoch }) => epoch))).toEqual(new Set([1]))
})

test('a lease is taken once, and again when it was disposed of', async () => {
  const { leases } = start()
  const first = await leases.tryAcquire('import')
  expect(await leases.tryAcquire('import')).toBeUndefined()
  expect(await start().leases.tryAcquire('import')).toBeUndefined()
  await first?.[Symbol.asyncDispose]()
  expect((await leases.tryAcquire('import'))?.epoch).toBe(2)
})

test('trap 20: a tick runs once however many ask, and of missed ticks only the latest runs', async () => {
  const clock = testClock(place)
  const ticks: Date[] = []
  const run = () =>
    runOncePerTick({
      database,
      job: 'invoices',
      everyMs: 60_000,
      work: async (_tx, scheduledFor) => {
        ticks.push(scheduledFor)
      },
    })
  expect((await Promise.all([run(), run(), run()])).filter(Boolean)).toHaveLength(1)
  await clock.advance(300_000)
  expect(await run()).toBe(true)
  expect(await run()).toBe(false)
  expect(ticks).toHaveLength(2)
  expect(ticks[1]!.getTime() - ticks[0]!.getTime()).toBe(300_000)
  expect(ticks[0]!.getTime() % 60_000).toBe(0)
})

test('a tick whose work failed remains to be run', async () => {
  const attempt = (work: () => Promise<void>) =>
    runOncePerTick({ database, job: 'invoices', everyMs: 3_600_000, work })
  await expect(
    attempt(async () => {
      throw new Error('stumbled')
    }),
  ).rejects.toThrow('stumbled')
  expect(await attempt(async () => undefined)).toBe(true)
})
