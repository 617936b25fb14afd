import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Database, openDatabase } from './database.ts'
import { executorKey, holdExecutor, isExecutorAlive, liveExecutorKeys } from './executor.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

let home: TestDatabase
let db: Database<object>
const log = silentLog()

beforeAll(async () => {
  home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  db = openDatabase({ url: home.url, schema: 'room', poolSize: 2, applicationName: 'executor.test', log })
})
afterAll(async () => {
  await db.close()
  await home.drop()
})

const alive = async (id: string): Promise<boolean> =>
  (await sql<{ alive: boolean }>`select ${isExecutorAlive(id)} as alive`.execute(db.kysely)).rows[0]
    ?.alive === true

/** Asks again until the server has noticed; each question is a round trip, so this does not spin. */
async function untilDead(id: string): Promise<void> {
  while (await alive(id));
}

test('an executor is alive while it holds its identity, and not a moment longer', async () => {
  const executor = holdExecutor({ url: db.directUrl, applicationName: 'executor', log })
  const { id, lost } = await executor.held()
  expect(executor.current?.id).toBe(id)
  expect(await alive(id)).toBe(true)
  expect(await alive('01900000-0000-7000-8000-000000000000')).toBe(false)
  await executor.close()
  expect(executor.current).toBeNull()
  expect(lost.aborted).toBe(true)
  await untilDead(id)
})

test('the keys of all that live can be joined with rows, high bits and all', async () => {
  const executors = Array.from({ length: 8 }, () =>
    holdExecutor({ url: db.directUrl, applicationName: 'executor', log }),
  )
  const ids = (await Promise.all(executors.map((executor) => executor.held()))).map(({ id }) => id)
  const { rows } = await sql<{ id: string }>`
    with live as materialized (select key from ${liveExecutorKeys()} as l)
    select id from unnest(${[...ids, 'gone']}::text[]) id where ${executorKey(sql<string>`id`)} in (select key from live)
  `.execute(db.kysely)
  expect(rows.map(({ id }) => id).toSorted()).toEqual(ids.toSorted())
  await Promise.all(executors.map((executor) => executor.close()))
})

test('an executor of another database is not alive here', async () => {
  await using elsewhere = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  await using executor = holdExecutor({ url: elsewhere.url, applicationName: 'executor', log })
  const { id } = await executor.held()
  expect(await alive(id)).toBe(false)
})

test('an executor whose connection is cut is dead and takes a new identity', async () => {
  await using executor = holdExecutor({ url: db.directUrl, applicationName: 'cut executor', log })
  const first = await executor.held()
  const lost = once(first.lost, 'abort')
  await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'cut executor'`.execute(
    db.kysely,
  )
  await lost
  await untilDead(first.id)
  const second = await executor.held()
  expect(second.id).not.toBe(first.id)
  expect(second.lost.aborted).toBe(false)
  expect(await alive(second.id)).toBe(true)
})

test('a killed process is seen dead within a second', async () => {
  const script = `
    import { holdExecutor } from '${new URL('./executor.ts', import.meta.url).href}'
    import { silentLog } from '@cloudphone/observe/log'
    const executor = holdExecutor({ url: process.env.TARGET, applicationName: 'child', log: silentLog() })
    process.stdout.write((await executor.held()).id)
  `
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: new URL('..', import.meta.url),
    env: { ...process.env, TARGET: db.directUrl },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [id] = await once(child.stdout.setEncoding('utf8'), 'data')
    expect(await alive(id)).toBe(true)
    const killedMs = performance.now()
    child.kill('SIGKILL')
    await untilDead(id)
    expect(performance.now() - killedMs).toBeLessThan(1_000)
  } finally {
    child.kill('SIGKILL')
  }
})
