import { createHash, randomUUID } from 'node:crypto'
import { withClient } from '@cloudphone/db/client'
import { migrate, readMigrations } from '@cloudphone/db/migrate'
import { type DatabaseTarget, retarget } from '@cloudphone/db/target'
import { silentLog } from '@cloudphone/observe/log'
import type pg from 'pg'
import { type FakeClock, fakeClock } from './fake-clock.ts'
import { testPostgres } from './postgres-door.ts'

export interface TestDatabaseOptions {
  /** Folders of migrations in order, as for `migrate`; `APP_NOW_MIGRATIONS` first. */
  migrations: readonly URL[]
  schema: string
}

export interface TestDatabase extends AsyncDisposable {
  /** As the superuser, with `schema` on its search_path. */
  url: DatabaseTarget
  database: string
  schema: string
  /** Cuts its connections and removes it. Safe to call twice. */
  drop(): Promise<void>
}

/**
 * A database of its own for a test, with the migrations applied: a clone (about 20 ms) of a template that is
 * built once per run and set of migrations. In it `app_now()` is `now()` plus the offset that `testClock` moves.
 */
export async function createTestDatabase(options: TestDatabaseOptions): Promise<TestDatabase> {
  const adminUrl = await testPostgres()
  const template = await ensureTemplate(adminUrl, options)
  const database = `test_${randomUUID().replaceAll('-', '')}`
  await withClient(adminUrl, 'test fixture', async (admin) => {
    await admin.query(`create database ${database} template ${template} strategy file_copy`)
    // Settings of a database are not cloned with it.
    await admin.query(
      `alter database ${database} set search_path to ${admin.escapeIdentifier(options.schema)}`,
    )
  })
  let dropping: Promise<void> | undefined
  const drop = (): Promise<void> => {
    dropping ??= withClient(adminUrl, 'test fixture', async (admin) => {
      await admin.query(`drop database if exists ${database} with (force)`)
    })
    return dropping
  }
  return {
    url: retarget(adminUrl, { database }),
    database,
    schema: options.schema,
    drop,
    [Symbol.asyncDispose]: drop,
  }
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
      await Promise.all(all.map((database) => moveDatabase(database, ms)))
      await clock.advance(ms)
    },
  }
}

async function moveDatabase({ url, schema }: TestDatabase, ms: number): Promise<void> {
  await withClient(url, 'test fixture', async (client) => {
    await client.query(
      `update ${client.escapeIdentifier(schema)}.test_clock set "offset" = "offset" + $1 * interval '1 millisecond'`,
      [ms],
    )
  })
}

async function ensureTemplate(
  adminUrl: DatabaseTarget,
  { migrations, schema }: TestDatabaseOptions,
): Promise<string> {
  const hash = createHash('sha256').update(schema)
  for (const { name, checksum } of await readMigrations(migrations)) hash.update(`\0${name}\0${checksum}`)
  const template = `template_${hash.digest('hex').slice(0, 16)}`
  await withClient(adminUrl, 'test fixture', async (admin) => {
    if (await isTemplate(admin, template)) return
    await admin.query('select pg_advisory_lock(hashtextextended($1, 0))', [template])
    if (await isTemplate(admin, template)) return
    // A crash while it was built may have left half of it.
    await admin.query(`drop database if exists ${template} with (force)`)
    await admin.query(`create database ${template} strategy file_copy`)
    const url = retarget(adminUrl, { database: template })
    await migrate({ url, schema, directories: migrations, log: silentLog() })
    await withClient(url, 'test fixture', (client) => replaceAppNow(client, schema))
    await admin.query(`alter database ${template} is_template true allow_connections false`)
  })
  return template
}

/** Only a finished template is marked as one. */
async function isTemplate(admin: pg.Client, name: string): Promise<boolean> {
  const found = await admin.query('select from pg_database where datname = $1 and datistemplate', [name])
  return found.rowCount === 1
}

async function replaceAppNow(client: pg.Client, schema: string): Promise<void> {
  const quoted = client.escapeIdentifier(schema)
  await client.query(`
    create table ${quoted}.test_clock ("offset" interval not null);
    insert into ${quoted}.test_clock values (interval '0');
    create unique index on ${quoted}.test_clock ((true));
    grant select on ${quoted}.test_clock to public;
    create or replace function ${quoted}.app_now() returns timestamptz language sql stable parallel safe
      as 'select now() + "offset" from ${quoted}.test_clock';
  `)
}
