import { chmod, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { withClient } from '@cloudphone/db/client'
import { startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { type DatabaseTarget, retarget } from '@cloudphone/db/target'
import { silentLog } from '@cloudphone/observe/log'
import { median } from '../harness/samples.ts'

/** A durable PostgreSQL of the suite's own, on the disk of the temporary folder. */
export interface Stage extends AsyncDisposable {
  /** The postmaster. */
  readonly pid: number
  /** Makes an empty database; answers its target, as the superuser. */
  database(name: string): Promise<DatabaseTarget>
  /** Writes out what earlier rounds have left, so that none pays for another. */
  checkpoint(): Promise<void>
  /** Bytes of write-ahead log so far. */
  walBytes(): Promise<number>
  /** Looks at the tables of databases, as autovacuum does in the long run: nobody shall plan by guesses. */
  analyze(databases: readonly string[]): Promise<void>
  /**
   * Transactions committed in databases that nobody is connected to any more: a connection may keep to itself for a second
   * what it has done, and tells the rest when it ends.
   */
  commits(databases: readonly string[]): Promise<number>
  /** What PostgreSQL says of itself, and what a write to its disk costs. */
  facts(): Promise<Record<string, string>>
}

const LEAVE_WITHIN_MS = 10_000
const LOOK_AGAIN_MS = 10

/** Starts it: fsync and synchronous_commit on. */
export async function openStage(): Promise<Stage> {
  const folder = await mkdtemp(join(tmpdir(), 'cloudphone-bench-kernel-'))
  // PostgreSQL's account must be able to pass through.
  await chmod(folder, 0o755)
  const server = await startEmbeddedPostgres({ dataDir: folder, projectDir: folder, log: silentLog() })
  const ask = <Result>(text: string, values: readonly unknown[] = []): Promise<Result[]> =>
    withClient(server.adminUrl, 'bench', async (client) => {
      const { rows } = await client.query<{ value: Result }>(text, [...values])
      return rows.map(({ value }) => value)
    })
  return {
    pid: server.pid,
    async database(name) {
      await ask(`create database ${name}`)
      return retarget(server.adminUrl, { database: name })
    },
    async checkpoint() {
      await ask('checkpoint')
    },
    walBytes: async () => Number((await ask(`select pg_current_wal_insert_lsn() - '0/0' as value`))[0]),
    async analyze(databases) {
      for (const database of databases)
        await withClient(retarget(server.adminUrl, { database }), 'bench', (client) =>
          client.query('analyze'),
        )
    },
    async commits(databases) {
      const connected = `select count(*) as value from pg_stat_activity
        where datname = any($1) and backend_type = 'client backend'`
      const deadlineMs = performance.now() + LEAVE_WITHIN_MS
      while (Number((await ask(connected, [databases]))[0]) > 0) {
        if (performance.now() > deadlineMs)
          throw new Error(
            `somebody is still connected to ${databases.join(' or ')} after ${LEAVE_WITHIN_MS} ms`,
          )
        await sleep(LOOK_AGAIN_MS)
      }
      const committed = 'select sum(xact_commit) as value from pg_stat_database where datname = any($1)'
      return Number((await ask(committed, [databases]))[0])
    },
    async facts() {
      const names = ['fsync', 'synchronous_commit', 'wal_sync_method', 'shared_buffers', 'max_wal_size']
      const version = await ask<string>(`select current_setting('server_version') as value`)
      const values = await ask<string>(
        `select name || ' ' || current_setting(name) as value from unnest($1::text[]) as name`,
        [names],
      )
      const ms = await syncedWriteMs(server.dataDir)
      return {
        PostgreSQL: [...version, ...values].join(', '),
        disk: `8 KiB written and fdatasync: ${ms.toFixed(2)} ms, median of ${SYNCED_WRITES} (${Math.round(1000 / ms)}/s)`,
      }
    },
    async [Symbol.asyncDispose]() {
      await server.stop()
      await rm(server.dataDir, { recursive: true, force: true })
      await rm(folder, { recursive: true, force: true })
    },
  }
}

const SYNCED_WRITES = 200

/** As pg_test_fsync does for fdatasync; npm's binaries of PostgreSQL come without it. */
async function syncedWriteMs(folder: string): Promise<number> {
  const path = join(folder, 'fsync-test')
  const file = await open(path, 'w')
  const page = Buffer.alloc(8192, 1)
  const samples: number[] = []
  try {
    for (let write = 0; write < SYNCED_WRITES; write += 1) {
      const startedMs = performance.now()
      await file.write(page, 0, page.length, 0)
      await file.datasync()
      samples.push(performance.now() - startedMs)
    }
  } finally {
    await file.close()
    await rm(path)
  }
  return median(samples)
}
