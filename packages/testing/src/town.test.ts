import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { on } from '@cloudphone/bus/consumer'
import { UsageTotal } from '@cloudphone/contracts/api/billing-api'
import { CommitQuota } from '@cloudphone/contracts/api/quota-api'
import { AppInstallRequested } from '@cloudphone/contracts/events/app-events'
import { TenantQuotaUpdated, UserQuotaUpdated } from '@cloudphone/contracts/events/user-events'
import { systemIds } from '@cloudphone/contracts/id'
import { withClient } from '@cloudphone/db/client'
import { describeTarget } from '@cloudphone/db/target'
import { bind } from '@cloudphone/runtime/http-server'
import { type AnyService, defineService } from '@cloudphone/runtime/service'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { testPostgres } from './postgres-door.ts'
import { callerOf } from './token-mint.ts'
import { openTown, type Town } from './town.ts'

interface Schema {
  heard: { at: Date }
}

let folder: string
let counter: AnyService
let town: Town
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'town-test-'))
  await writeFile(join(folder, 'package.json'), '{"name":"@cloudphone/counter"}')
  await mkdir(join(folder, 'migrations'))
  const create = 'create table heard (at timestamptz not null)'
  await writeFile(join(folder, 'migrations', '0001-heard.sql'), create)
  counter = defineService<z.ZodObject<Record<never, never>>, Schema>({
    name: 'devices',
    settings: z.object({}),
    migrations: pathToFileURL(join(folder, 'migrations/')),
    start: async ({ database }) => ({
      routes: [
        bind(UsageTotal, async () => {
          const { records } = await database.kysely
            .selectFrom('heard')
            .select((of) => of.fn.countAll<number>().as('records'))
            .executeTakeFirstOrThrow()
          return {
            records: Number(records),
            open: 0,
            seconds: 0,
            costMicro: 0,
            cost: '0.00',
            currency: 'CNY' as const,
          }
        }),
      ],
      handlers: [
        on(AppInstallRequested, async (tx) => {
          await sql`insert into heard values (app_now())`.execute(tx)
        }),
        on(UserQuotaUpdated, async () => undefined),
        on(TenantQuotaUpdated, async () => undefined),
      ],
    }),
  })
})
afterAll(() => rm(folder, { recursive: true, force: true }))
beforeEach(async () => {
  town = await openTown()
})
afterEach(() => town.close())

function publish(): Promise<void> {
  const { userId } = callerOf()
  const installationId = systemIds.next<'installation'>()
  const [appId, deviceId] = [systemIds.next<'app'>(), systemIds.next<'device'>()]
  const payload = {
    ...{ installationId, appId, deviceId, userId, allocationId: null, fence: 0 },
    ...{ packageName: 'dev.example', versionCode: 1, sizeBytes: 1, sha256: '0'.repeat(64) },
  }
  return town.publish(AppInstallRequested, { aggregateId: installationId, payload })
}

test('two instances share a schema and a queue; their callers are known by signed tokens', async () => {
  const instances = [await town.start(counter), await town.start(counter)]
  for (let n = 0; n < 10; n += 1) await publish()
  await town.drain()
  for (const at of instances) {
    expect(await town.call(UsageTotal, { at, as: callerOf() })).toMatchObject({ records: 10 })
  }
  const question = {
    method: UsageTotal.method,
    path: UsageTotal.path,
    headers: { authorization: 'Bearer x' },
  }
  expect(await town.ask(instances[0]!, callerOf(), question)).toMatchObject({
    ...{ status: 401, body: { code: 'invalid_token' } },
  })
})

test('time moves in the databases', async () => {
  await town.start(counter)
  await town.moveTime(3_600_000)
  await publish()
  await town.drain()
  const { at } = await town
    .databaseOf<Schema>('devices')
    .kysely.selectFrom('heard')
    .select('at')
    .executeTakeFirstOrThrow()
  expect(at.getTime() - Date.now()).toBeGreaterThan(3_500_000)
})

test('a service sees no schema but its own', async () => {
  const sees = sql`select from users.test_clock`.execute(town.databaseOf('devices').kysely)
  await expect(sees).rejects.toThrow(/permission denied for schema users/)
})

test('a neighbour answers services only, and the users service’s keys stay known', async () => {
  const committed: string[] = []
  await town.neighbour('users', [
    bind(CommitQuota, async ({ params }) => {
      committed.push(params.reservationId)
      return undefined
    }),
  ])
  const reservationId = systemIds.next()
  await town.clientOf('apps').call(CommitQuota, { params: { reservationId } })
  expect(committed).toEqual([reservationId])
  const asUser = town.call(CommitQuota, { as: callerOf(), params: { reservationId } })
  await expect(asUser).rejects.toMatchObject({ status: 401, code: 'invalid_token' })
  const at = await town.start(counter)
  expect(await town.call(UsageTotal, { at, as: callerOf() })).toMatchObject({ records: 0 })
})

test('nothing is left of a town that is closed', async () => {
  const { address } = await town.start(counter)
  const { database } = describeTarget(town.platform.databases.devices!.url)
  await town.close()
  await expect(fetch(address)).rejects.toThrow()
  await expect(access(town.blobFolder)).rejects.toThrow(/ENOENT/)
  const found = await withClient(await testPostgres(), 'test', (admin) =>
    admin.query('select from pg_database where datname = $1', [database]),
  )
  expect(found.rowCount).toBe(0)
})
