import { createHash } from 'node:crypto'
import { access, readdir, readFile } from 'node:fs/promises'
import type { Logger } from '@cloudphone/observe/log'
import type pg from 'pg'
import { withClient } from './client.ts'
import type { DatabaseTarget } from './target.ts'

export interface MigrateOptions {
  /** As the schema's own role, and at the server itself: an advisory lock is held meanwhile. */
  url: DatabaseTarget
  schema: string
  /** Folders of numbered `.sql` files, in the order in which they apply. `APP_NOW_MIGRATIONS` comes first. */
  directories: readonly URL[]
  log: Logger
}

export interface Migration {
  /** `<package>/<file>`, such as `saga/0001-saga.sql`: the same wherever the project lies. */
  name: string
  sql: string
  /** SHA-256 of the text with Unix line ends, in hex. */
  checksum: string
}

/** The folder with the first migration of every schema: `app_now()`. */
export const APP_NOW_MIGRATIONS = new URL('../migrations/', import.meta.url)

/** A migration that cannot be applied; the message says which and what to do. */
class MigrationError extends Error {
  override readonly name = 'MigrationError'
  readonly code = 'migration_failed'
  readonly retryable = false
}

/**
 * Brings `schema` (created if absent) to what the folders hold, forward only. Each file runs in a
 * transaction of its own with its row in `schema_migrations`, so a crash leaves whole steps. Processes
 * that start together wait for each other. Names the code does not know are left alone: during an
 * upgrade the older release serves the newer schema.
 * Throws `MigrationError` when an applied file was edited or a new one is numbered before an applied one.
 */
export async function migrate(options: MigrateOptions): Promise<{ applied: string[] }> {
  const migrations = await readMigrations(options.directories)
  return await withClient(options.url, `migrate ${options.schema}`, async (client) => {
    // A session lock: it goes with the connection, also when this process is killed.
    await client.query('select pg_advisory_lock(hashtextextended($1, 0))', [
      `cloudphone.migrate.${options.schema}`,
    ])
    return await applyAll(client, migrations, options)
  })
}

/** Reads the numbered files of the folders in order. Throws on a name that is not `0001-some-words.sql`. */
export async function readMigrations(directories: readonly URL[]): Promise<Migration[]> {
  const migrations: Migration[] = []
  for (const directory of directories) {
    const label = await packageOf(directory)
    const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort()
    for (const file of files) {
      if (!/^\d{4}-[a-z0-9-]+\.sql$/.test(file)) {
        throw new MigrationError(`Migration ${label}/${file}: name it like 0001-some-words.sql`)
      }
      const sql = (await readFile(new URL(file, asFolder(directory)), 'utf8')).replaceAll('\r\n', '\n')
      const name = `${label}/${file}`
      if (migrations.some((other) => other.name === name || sameNumber(other.name, name))) {
        throw new MigrationError(`Migration ${name}: its number is taken by another file of ${label}`)
      }
      migrations.push({ name, sql, checksum: createHash('sha256').update(sql).digest('hex') })
    }
  }
  return migrations
}

async function applyAll(
  client: pg.Client,
  migrations: readonly Migration[],
  { schema, log }: MigrateOptions,
): Promise<{ applied: string[] }> {
  const quoted = client.escapeIdentifier(schema)
  const existing = await client.query('select from pg_namespace where nspname = $1', [schema])
  // `create schema if not exists` asks for CREATE on the database even when there is nothing to do.
  if (existing.rowCount === 0) await client.query(`create schema ${quoted}`)
  await client.query(`set search_path to ${quoted}`)
  await client.query(`create table if not exists schema_migrations (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
  )`)
  const { rows } = await client.query<{ name: string; checksum: string }>(
    'select name, checksum from schema_migrations',
  )
  const known = new Map(rows.map((row) => [row.name, row.checksum]))
  const pending = pendingOf(migrations, known, schema)
  for (const migration of pending) await applyOne(client, migration, schema)
  const applied = pending.map(({ name }) => name)
  if (applied.length > 0) log.info({ event: 'db.migrated', schema, applied })
  return { applied }
}

function pendingOf(
  migrations: readonly Migration[],
  known: ReadonlyMap<string, string>,
  schema: string,
): Migration[] {
  const pending: Migration[] = []
  for (const migration of migrations) {
    const checksum = known.get(migration.name)
    if (checksum === migration.checksum) {
      const early = pending.find(({ name }) => packageLabel(name) === packageLabel(migration.name))
      if (early === undefined) continue
      throw new MigrationError(
        `Migration ${early.name} is new, but ${migration.name} is already applied to schema ${schema}: give it a higher number`,
      )
    }
    if (checksum !== undefined) {
      throw new MigrationError(
        `Migration ${migration.name} was edited after it was applied to schema ${schema} (checksum ${checksum.slice(0, 12)} applied, ${migration.checksum.slice(0, 12)} in the file): restore the file and put the change into a new one`,
      )
    }
    pending.push(migration)
  }
  return pending
}

async function applyOne(
  client: pg.Client,
  { name, sql, checksum }: Migration,
  schema: string,
): Promise<void> {
  await client.query('begin')
  try {
    await client.query(sql)
    await client.query('insert into schema_migrations (name, checksum) values ($1, $2)', [name, checksum])
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    const reason = error instanceof Error ? error.message : String(error)
    throw new MigrationError(`Migration ${name} failed on schema ${schema}: ${reason}`, { cause: error })
  }
}

/** The short name of the package a folder belongs to: `@cloudphone/saga` is `saga`. */
async function packageOf(directory: URL): Promise<string> {
  for (let folder = asFolder(directory); ; folder = new URL('../', folder)) {
    const manifest = new URL('package.json', folder)
    const found = await access(manifest).then(
      () => true,
      () => false,
    )
    if (found) {
      const { name }: { name?: unknown } = JSON.parse(await readFile(manifest, 'utf8'))
      if (typeof name === 'string') return name.replace(/^@[^/]+\//, '')
    }
    if (folder.pathname === '/') {
      throw new MigrationError(`Migrations in ${directory.pathname}: no package.json with a name above them`)
    }
  }
}

function asFolder(directory: URL): URL {
  return directory.pathname.endsWith('/') ? directory : new URL(`${directory.href}/`)
}

function packageLabel(name: string): string {
  return name.slice(0, name.indexOf('/'))
}

function sameNumber(one: string, other: string): boolean {
  const numberOf = (name: string): string => name.slice(0, name.indexOf('/') + 5)
  return numberOf(one) === numberOf(other)
}
