import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { withClient } from '@cloudphone/db/client'
import { socketTarget } from '@cloudphone/db/target'

export type Row = Record<string, unknown>

/** Looks into, or breaks, what a running platform keeps: as the superuser of its embedded PostgreSQL. */
export interface Books {
  /** Runs a statement in a database of the platform (default `cloudphone_core`); tables are named `<service>.<table>`. */
  query(sql: string, values?: readonly unknown[], database?: string): Promise<Row[]>
  /** Runs `sql` in a transaction, then `work` while it is open (so that locks are held), then rolls back. */
  holding<Result>(sql: string, work: () => Promise<Result>): Promise<Result>
}

/** Opens the books of the platform on a data directory; every query reads anew where its PostgreSQL listens. */
export function openBooks(dataDir: string): Books {
  const targetOf = async (database: string) => {
    const home = join(dataDir, 'postgres')
    const password = (await readFile(join(home, 'password'), 'utf8')).trim()
    // The fifth line is the socket's directory (PostgreSQL source, pidfile.h).
    const [, , , , directory = ''] = (await readFile(join(home, 'data', 'postmaster.pid'), 'utf8')).split(
      '\n',
    )
    return socketTarget(directory.trim(), { user: 'postgres', password, database })
  }
  return {
    query: async (sql, values = [], database = 'cloudphone_core') =>
      await withClient(await targetOf(database), 'platform test', async (client) => {
        return (await client.query<Row>(sql, [...values])).rows
      }),
    holding: async (sql, work) =>
      await withClient(await targetOf('cloudphone_core'), 'platform test', async (client) => {
        await client.query('begin')
        await client.query(sql)
        try {
          return await work()
        } finally {
          await client.query('rollback')
        }
      }),
  }
}
