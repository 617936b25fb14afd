import { createConnection } from 'node:net'
import { text } from 'node:stream/consumers'
import type { DatabaseTarget } from '@cloudphone/db/target'

/** Names the unix socket at which the run's global set-up answers where PostgreSQL is. */
export const DOOR_VARIABLE = 'CLOUDPHONE_TEST_POSTGRES'

/** The superuser's target of the run's PostgreSQL, which starts now if nobody has asked before. */
export async function testPostgres(): Promise<DatabaseTarget> {
  const path = process.env[DOOR_VARIABLE]
  if (path === undefined) {
    throw new Error(
      `${DOOR_VARIABLE} is not set: vitest.config.ts must name packages/testing/src/global-setup.ts as globalSetup`,
    )
  }
  const socket = createConnection(path)
  socket.write('where?')
  const answer: { adminUrl?: string; error?: string } = JSON.parse(await text(socket))
  if (answer.adminUrl === undefined) throw new Error(`The run's PostgreSQL did not start: ${answer.error}`)
  return answer.adminUrl
}
