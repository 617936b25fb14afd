import { createHash } from 'node:crypto'
import { migrate, readMigrations } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import pg from 'pg'
import { type FakeClock, fakeClock } from './fake-clock.ts'
import { testPostgres } from './postgres-door.ts'
import {
  administer,
  type Clone,
  cloneTemplate,
  ensureTemplate,
  makeTimeMovable,
  moveTime,
} from './template.ts'

export interface TestDatabaseOptions {
  /** Folders of migrations in order, as for `migrate`; `APP_NOW_MIGRATIONS` first. */
  migrations: readonly URL[]
  schema: string
}

/** Its `url` has `schema` on its search_path. */
export interface TestDatabase extends Clone, AsyncDisposable {
  readonly schema: string
}

/**
 * A database of its own for a test, with the migrations applied: a clone (about 20 ms) of a template that is
 * built once per run and set of migrations. In it `app_now()` is `now()` plus the offset that `testClock` moves.
 */
export async function createTestDatabase({ migrations, schema }: TestDatabaseOptions): Promise<TestDatabase> {
  const adminUrl = await testPostgres()
  const hash = createHash('sha256').update(schema)
  for (const { name, checksum } of await readMigrations(migrations)) hash.update(`\0${name}\0${checksum}`)
  const template = `template_${hash.digest('hex').slice(0, 16)}`
  await ensureTemplate(adminUrl, template, async (url) => {
    await migrate({ url, schema, directories: migrations, log: silentLog() })
    await makeTimeMovable(url, schema)
  })
  const clone = await cloneTemplate(adminUrl, template)
  const path = pg.escapeIdentifier(schema)
  await administer(adminUrl, `alter database ${clone.database} set search_path to ${path}`)
  return { ...clone, schema, [Symbol.asyncDispose]: clone.drop }
}

/** The JavaScript clock and the `app_now()` of databases, moved together. */
export interface TestClock extends FakeClock {
  /** Moves the databases first, so that whoever is woken finds its deadline passed there too. */
  advance(ms: number): Promise<void>
}

/**
 * Opens a clock for the parts under test and their databases. It starts at the present; real time goes on
 * in the databases but is too short to matter to what is tested with it (seconds and up).
 */
export function testClock(databases: TestDatabase | readonly TestDatabase[]): TestClock {
  const all = 'url' in databases ? [databases] : databases
  const clock = fakeClock(new Date())
  return {
    ...clock,
    async advance(ms) {
      await Promise.all(all.map(({ url, schema }) => moveTime(url, [schema], ms)))
      await clock.advance(ms)
    },
  }
}
