import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import { EMBEDDED_BUS_MIGRATIONS, openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import type { Platform } from '@cloudphone/runtime/platform'
import { createTestDatabase } from '@cloudphone/testing/postgres'

export const admin = { email: 'admin@example.com', password: 'a quite long secret' }
export const serviceSecret = 'a secret that only the services of this test share'

/** A real platform for instances of the users service: database, bus and registry, on free ports. */
export async function openUsersPlatform(folder: string): Promise<Platform & AsyncDisposable> {
  const usersDatabase = await createTestDatabase({ migrations: [APP_NOW_MIGRATIONS], schema: 'users' })
  const busDatabase = await createTestDatabase({
    migrations: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS],
    schema: 'bus',
  })
  const log = silentLog()
  const crash = crashPoints(undefined)
  const metrics = openMetrics('bus')
  const bus = openEmbeddedBus({ url: busDatabase.url, log, metrics, crash })
  await bus.declare()
  return {
    env: {
      CLOUDPHONE_ADMIN_EMAIL: admin.email,
      CLOUDPHONE_ADMIN_PASSWORD: admin.password,
      USERS_DEFAULT_MAX_DEVICES: '3',
    },
    log,
    registry: staticRegistry(),
    bus,
    blobs: await openDirectoryStore(folder),
    crash,
    metrics,
    serviceSecret,
    databases: { users: { url: usersDatabase.url, schema: 'users' } },
    poolSize: 5,
    host: '127.0.0.1',
    portBase: 0,
    [Symbol.asyncDispose]: async () => {
      await bus.close()
      await usersDatabase.drop()
      await busDatabase.drop()
    },
  }
}
