import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { silentLog } from '@cloudphone/observe/log'
import { createTestDatabase, type TestDatabase } from '@cloudphone/testing/postgres'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Database, openDatabase } from './database.ts'
import { DatabaseUnavailable } from './errors.ts'
import { APP_NOW_MIGRATIONS } from './migrate.ts'

const SILENT_AFTER_MS = 400

/** A door to the server that can fall silent: it goes on taking bytes, and passes none. */
async function openDoor(target: string) {
  const { searchParams } = new URL(target)
  const path = `${searchParams.get('host')}/.s.PGSQL.${searchParams.get('port') ?? 5432}`
  const deaf = new WeakSet<Socket>()
  const sockets = new Set<Socket>()
  let isShut = false
  const server = createServer((near) => {
    const far = createConnection({ path })
    if (isShut) deaf.add(near).add(far)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      from.on('error', () => from.destroy())
      from.on('data', (bytes) => deaf.has(from) || to.write(bytes))
      from.once('close', () => deaf.has(from) || to.destroy())
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const url = new URL(target)
  url.search = ''
  url.hostname = '127.0.0.1'
  url.port = String(typeof address === 'object' ? address?.port : '')
  return {
    url: url.href,
    /** Those that are open hear nothing any more; new ones neither, if it is shut. */
    fallSilent({ shut }: { shut: boolean }) {
      isShut = shut
      for (const socket of sockets) deaf.add(socket)
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

let home: TestDatabase
let door: Awaited<ReturnType<typeof openDoor>>
let db: Database<unknown>

beforeAll(async () => {
  home = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'room' })
})
afterAll(() => home.drop())
afterEach(async () => {
  await db.close()
  await door[Symbol.asyncDispose]()
})

async function open(poolSize: number): Promise<void> {
  door = await openDoor(home.url)
  db = openDatabase({
    ...{ url: door.url, schema: 'room', poolSize, applicationName: 'silence.test' },
    ...{ log: silentLog(), silentAfterMs: SILENT_AFTER_MS },
  })
}

test('a transaction whose connection falls silent fails, its locks are free, and the pool works again', async () => {
  await open(3)
  await sql`create table if not exists shelf (id int primary key)`.execute(db.kysely)
  // Idle ones that fall silent with it.
  await Promise.all([1, 2, 3].map(() => sql`select pg_sleep(0.02)`.execute(db.kysely)))
  const cut = db.transaction(async (tx) => {
    await sql`insert into shelf values (1)`.execute(tx)
    door.fallSilent({ shut: false })
    await sql`insert into shelf values (2)`.execute(tx)
  })
  await expect(cut).rejects.toBeInstanceOf(DatabaseUnavailable)
  // What the transaction had written is locked for a minute unless its backend is ended.
  await sql`set lock_timeout = '10s'; insert into shelf values (1)`.execute(db.kysely)
})

test('a long query is left alone', async () => {
  await open(1)
  const { rows } = await sql<{ slept: string }>`
    select pg_sleep(${(SILENT_AFTER_MS * 4) / 1_000})::text as slept`.execute(db.kysely)
  expect(rows).toEqual([{ slept: '' }])
})

test('a query fails when the server is not reached any more', async () => {
  await open(1)
  await sql`select 1`.execute(db.kysely)
  door.fallSilent({ shut: true })
  await expect(sql`select 1`.execute(db.kysely)).rejects.toBeInstanceOf(DatabaseUnavailable)
})
