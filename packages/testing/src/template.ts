import { randomUUID } from 'node:crypto'
import { withClient } from '@cloudphone/db/client'
import { clientConfig, type DatabaseTarget, retarget } from '@cloudphone/db/target'
import pg from 'pg'

/** A database of a test's own. */
export interface Clone {
  readonly database: string
  /** As the superuser. */
  readonly url: DatabaseTarget
  /** Cuts its connections and removes it. Safe to call twice. */
  drop(): Promise<void>
}

const admins = new Map<DatabaseTarget, pg.Pool>()

/** Runs a statement as the superuser, on a connection that is kept: opening one takes as long as cloning a database. */
export async function administer(adminUrl: DatabaseTarget, sql: string, values: unknown[] = []) {
  let pool = admins.get(adminUrl)
  if (pool === undefined) {
    const config = clientConfig(adminUrl, 'test fixture')
    pool = new pg.Pool({ ...config, max: 2, idleTimeoutMillis: 3_000, allowExitOnIdle: true })
    // The next statement fails by itself.
    pool.on('error', () => undefined)
    admins.set(adminUrl, pool)
  }
  return await pool.query(sql, values)
}

/** Makes sure that the template is there, built once per run whoever asks first; `build` gets it empty. */
export async function ensureTemplate(
  adminUrl: DatabaseTarget,
  template: string,
  build: (url: DatabaseTarget) => Promise<void>,
): Promise<void> {
  if (await isTemplate(adminUrl, template)) return
  // On a connection of its own, whose end is the end of the lock.
  await withClient(adminUrl, 'test fixture', async (admin) => {
    await admin.query('select pg_advisory_lock(hashtextextended($1, 0))', [template])
    if (await isTemplate(adminUrl, template)) return
    // A crash while it was built may have left half of it.
    await admin.query(`drop database if exists ${template} with (force)`)
    await admin.query(`create database ${template} strategy file_copy`)
    await build(retarget(adminUrl, { database: template }))
    await admin.query(`alter database ${template} is_template true allow_connections false`)
  })
}

/** Clones a template, in about 20 ms. Settings and rights of the database itself are not cloned with it. */
export async function cloneTemplate(adminUrl: DatabaseTarget, template: string): Promise<Clone> {
  const database = `test_${randomUUID().replaceAll('-', '')}`
  await administer(adminUrl, `create database ${database} template ${template} strategy file_copy`)
  let dropping: Promise<void> | undefined
  const drop = (): Promise<void> => {
    dropping ??= administer(adminUrl, `drop database if exists ${database} with (force)`).then(
      () => undefined,
    )
    return dropping
  }
  return { database, url: retarget(adminUrl, { database }), drop }
}

/** From now on the schema's `app_now()` is `now()` plus an offset, which `moveTime` moves. */
export async function makeTimeMovable(url: DatabaseTarget, schema: string): Promise<void> {
  await withClient(url, 'test fixture', async (client) => {
    const quoted = client.escapeIdentifier(schema)
    await client.query(`
      create table ${quoted}.test_clock ("offset" interval not null);
      insert into ${quoted}.test_clock values (interval '0');
      create unique index on ${quoted}.test_clock ((true));
      grant select on ${quoted}.test_clock to public;
      create or replace function ${quoted}.app_now() returns timestamptz language sql stable parallel safe
        as 'select now() + "offset" from ${quoted}.test_clock';
    `)
  })
}

export async function moveTime(url: DatabaseTarget, schemas: readonly string[], ms: number): Promise<void> {
  await withClient(url, 'test fixture', async (client) => {
    for (const schema of schemas) {
      await client.query(
        `update ${client.escapeIdentifier(schema)}.test_clock set "offset" = "offset" + $1 * interval '1 millisecond'`,
        [ms],
      )
    }
  })
}

/** Only a finished template is marked as one. */
async function isTemplate(adminUrl: DatabaseTarget, name: string): Promise<boolean> {
  const sql = 'select from pg_database where datname = $1 and datistemplate'
  return (await administer(adminUrl, sql, [name])).rowCount === 1
}
