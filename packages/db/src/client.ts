import pg from 'pg'
import { translated } from './errors.ts'
import { clientConfig, type DatabaseTarget } from './target.ts'

/**
 * Runs `work` on one connection of its own and closes it. For administration (migrations, provisioning);
 * services use a pool. Throws `DatabaseUnavailable` when the connection fails.
 */
export async function withClient<Result>(
  url: DatabaseTarget,
  applicationName: string,
  work: (client: pg.Client) => Promise<Result>,
): Promise<Result> {
  const client = new pg.Client(clientConfig(url, applicationName))
  let broken = false
  // Between two queries a lost connection is an event, which ends the process when nobody listens. The next
  // query fails by itself.
  client.on('error', () => {
    broken = true
  })
  try {
    await client.connect()
    return await work(client)
  } catch (error) {
    throw translated(error)
  } finally {
    if (!broken) await client.end()
  }
}
