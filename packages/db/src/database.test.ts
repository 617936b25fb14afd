import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type AnyTx, afterCommit, type Database, openDatabase, type Tx } from './database.ts'
import { DatabaseUnavailable, isUniqueViolation } from './errors.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

interface Schema {
  account: { id: number; amount: number }
}

let home: TestDatabase
let db: Database<Schema>

beforeAll(async () => {
  home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
  db = openDatabase<Schema>({
    url: home.url,
    schema: 'room',
    poolSize: 4,
    applicationName: 'database.test',
    log: silentLog(),
  })
  await sql`create table account (id int primary key, amount bigint not null)`.execute(db.kysely)
})
afterAll(async () => {
  await db.close()
  await home.drop()
})
beforeEach(async () => {
  await sql`truncate account`.execute(db.kysely)
  await db.kysely
    .insertInto('account')
    .values([
      { id: 1, amount: 0 },
      { id: 2, amount: 0 },
    ])
    .execute()
})

const add = (tx: Tx<Schema>, id: number, amount: number) =>
  tx
    .updateTable('account')
    .set((eb) => ({ amount: eb('amount', '+', amount) }))
    .where('id', '=', id)
    .execute()

const amounts = async () =>
  (await db.kysely.selectFrom('account').select('amount').orderBy('id').execute()).map(({ amount }) => amount)

test('columns arrive as numbers, text, dates and objects, without loss', async () => {
  const { rows } = await sql`select 9007199254740991::bigint as big, array[1, null]::bigint[] as bigs,
    12.30::numeric as amount, '2026-02-03'::date as day, '2026-02-03T04:05:06Z'::timestamptz as moment,
    '{"a":[1]}'::jsonb as body`.execute(db.kysely)
  expect(rows).toEqual([
    {
      big: Number.MAX_SAFE_INTEGER,
      bigs: [1, null],
      amount: '12.30',
      day: '2026-02-03',
      moment: new Date('2026-02-03T04:05:06Z'),
      body: { a: [1] },
    },
  ])
  await expect(sql`select 9007199254740992::bigint`.execute(db.kysely)).rejects.toThrow(
    'bigint 9007199254740992 does not fit',
  )
})

test('after-commit hooks run once the rows are visible to others, in order', async () => {
  const seen: string[] = []
  const visible = Promise.withResolvers<number[]>()
  await db.transaction(async (tx) => {
    afterCommit(tx, () => {
      seen.push('first')
      visible.resolve(amounts())
    })
    afterCommit(tx, () => seen.push('second'))
    await add(tx, 1, 5)
    expect(seen).toEqual([])
  })
  expect(seen).toEqual(['first', 'second'])
  expect(await visible.promise).toEqual([5, 0])
})

test('after-commit hooks do not run on rollback', async () => {
  const seen: string[] = []
  await expect(
    db.transaction(async (tx) => {
      afterCommit(tx, () => seen.push('never'))
      await add(tx, 1, 5)
      throw new Error('changed my mind')
    }),
  ).rejects.toThrow('changed my mind')
  expect(seen).toEqual([])
  expect(await amounts()).toEqual([0, 0])
})

test('after-commit hooks do not run when the commit itself is refused', async () => {
  await sql`create table child (id int references account deferrable initially deferred)`.execute(db.kysely)
  const seen: string[] = []
  await expect(
    db.transaction(async (tx) => {
      afterCommit(tx, () => seen.push('never'))
      await sql`insert into child values (99)`.execute(tx)
    }),
  ).rejects.toThrow('foreign key')
  expect(seen).toEqual([])
  await sql`drop table child`.execute(db.kysely)
})

test('a transaction that swallows the error of a statement is not taken for committed', async () => {
  const run: string[] = []
  const work = db.transaction(async (tx) => {
    afterCommit(tx, () => run.push('committed'))
    await sql`select 1 / 0`.execute(tx).catch(() => undefined)
  })
  await expect(work).rejects.toThrow('its error was swallowed')
  expect(run).toEqual([])
})

test('two transactions that deadlock both commit, and the loser hooks count once', async () => {
  const bothHold = Promise.withResolvers<void>()
  let holding = 0
  let tries = 0
  const seen: string[] = []
  const move = (from: number, to: number) =>
    db.transaction(async (tx) => {
      tries += 1
      afterCommit(tx, () => seen.push(`${from}->${to}`))
      await add(tx, from, -10)
      holding += 1
      if (holding === 2) bothHold.resolve()
      // Each waits until the other holds its first row: the deadlock is certain.
      await bothHold.promise
      await add(tx, to, 10)
    })
  await Promise.all([move(1, 2), move(2, 1)])
  // One loses, and may lose again when it is back before the other has woken up.
  expect(tries).toBeGreaterThanOrEqual(3)
  expect(seen.toSorted()).toEqual(['1->2', '2->1'])
  expect(await amounts()).toEqual([0, 0])
})

test('a serialization failure runs the work again on fresh data', async () => {
  let tries = 0
  await db.transaction(
    async (tx) => {
      tries += 1
      const { amount } = await tx
        .selectFrom('account')
        .select('amount')
        .where('id', '=', 1)
        .executeTakeFirstOrThrow()
      if (tries === 1) await db.transaction((rival) => add(rival, 1, 100))
      await tx
        .updateTable('account')
        .set({ amount: amount + 1 })
        .where('id', '=', 1)
        .execute()
    },
    { isolation: 'repeatable read' },
  )
  expect(tries).toBe(2)
  expect(await amounts()).toEqual([101, 0])
})

test('a conflict that does not go away is given up after five retries', async () => {
  let tries = 0
  const conflict = db.transaction(async (tx) => {
    tries += 1
    await sql`do $$ begin raise exception 'again' using errcode = '40001'; end $$`.execute(tx)
  })
  await expect(conflict).rejects.toMatchObject({ code: '40001' })
  expect(tries).toBe(6)
})

test('a connection cut within a transaction is DatabaseUnavailable, and the next transaction works', async () => {
  const cut = db.transaction(async (tx) => {
    await add(tx, 1, 5)
    const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(tx)
    await sql`select pg_terminate_backend(${rows[0]?.pid})`.execute(db.kysely)
    await add(tx, 2, 5)
  })
  await expect(cut).rejects.toBeInstanceOf(DatabaseUnavailable)
  await db.transaction((tx) => add(tx, 2, 7))
  expect(await amounts()).toEqual([0, 7])
})

test('a server that is not there is DatabaseUnavailable, for statements and transactions alike', async () => {
  await using nowhere = openDatabase<Schema>({
    url: 'postgres://u:p@localhost/db?host=/nonexistent',
    schema: 'room',
    poolSize: 1,
    applicationName: 'database.test',
    log: silentLog(),
  })
  await expect(nowhere.transaction((tx) => add(tx, 1, 1))).rejects.toMatchObject({ retryable: true })
  await expect(nowhere.kysely.selectFrom('account').selectAll().execute()).rejects.toBeInstanceOf(
    DatabaseUnavailable,
  )
})

test('a violated constraint is told from others by its name', async () => {
  const twice = db.kysely.insertInto('account').values({ id: 1, amount: 0 }).execute()
  const error: unknown = await twice.catch((caught: unknown) => caught)
  expect(isUniqueViolation(error)).toBe(true)
  expect(isUniqueViolation(error, 'account_pkey')).toBe(true)
  expect(isUniqueViolation(error, 'another')).toBe(false)
})

test('only a transaction of ours passes for one', async () => {
  const kernel = (tx: AnyTx) => sql`select 1`.execute(tx)
  const attempts = {
    // @ts-expect-error outside of a transaction
    kysely: (plain: Kysely<Schema>) => kernel(plain),
    // @ts-expect-error a plain Kysely transaction has no after-commit hooks
    foreign: () => db.kysely.transaction().execute((tx) => kernel(tx)),
  }
  expect(Object.keys(attempts)).toHaveLength(2)
  const { rows } = await db.transaction((tx) => kernel(tx))
  expect(rows).toHaveLength(1)
})
