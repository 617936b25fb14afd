import { withClient } from '@cloudphone/db/client'
import type { DatabaseTarget } from '@cloudphone/db/target'

/** Empties all tables of a schema but those named in `keep`. */
export async function truncate(
  url: DatabaseTarget,
  { schema, keep }: { schema: string; keep: readonly string[] },
): Promise<void> {
  await withClient(url, 'bench', async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> all ($2)`,
      [schema, [...keep]],
    )
    if (rows.length > 0) await client.query(`truncate ${rows.map(({ name }) => name).join(', ')} cascade`)
  })
}

/** The whole numbers that a query answers in its one row. */
export async function numbers<Name extends string>(
  url: DatabaseTarget,
  text: string,
): Promise<Record<Name, number>> {
  return await withClient(url, 'bench', async (client) => {
    const { rows } = await client.query<Record<Name, string | number>>(text)
    const row = rows[0]
    if (row === undefined) throw new Error(`no row from: ${text}`)
    return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, Number(value)])) as Record<
      Name,
      number
    >
  })
}
