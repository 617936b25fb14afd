import { rm } from 'node:fs/promises'
import { EMBEDDED_BUS_MIGRATIONS } from '@cloudphone/bus/embedded/embedded-bus'
import { INBOX_MIGRATIONS } from '@cloudphone/bus/inbox'
import { withClient } from '@cloudphone/db/client'
import { openDatabase } from '@cloudphone/db/database'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@cloudphone/db/embedded/postgres'
import { isUnavailable } from '@cloudphone/db/errors'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { type DatabaseTarget, describeTarget, retarget } from '@cloudphone/db/target'
import { silentLog } from '@cloudphone/observe/log'
import { OUTBOX_MIGRATIONS } from '@cloudphone/outbox/open-outbox'
import { SAGA_MIGRATIONS } from '@cloudphone/saga/engine'
import { PURCHASE_TABLES } from '@cloudphone/saga/testing/purchase'
import { type Clone, cloneTemplate, ensureTemplate } from '@cloudphone/testing/template'
import { temporaryFolder } from '@cloudphone/testing/temporary-folder'
import { CompiledQuery } from 'kysely'
import { until } from '../../src/until.ts'
import { CREATION_TABLES } from './creation-shape.ts'
import { EFFECT_TABLE, SCHEMA } from './world.ts'

/** A PostgreSQL of one's own: cells on different lanes run side by side, and a fault of one server is one lane's. */
export interface Lane extends AsyncDisposable {
  /** A fresh database with everything that a world needs. */
  database(): Promise<CellDatabase>
  /** Ends the server as a power cut would (`pg_ctl stop -m immediate`); nothing answers until `start`. */
  crash(): Promise<void>
  start(): Promise<void>
}

export interface CellDatabase extends Pick<Clone, 'drop'> {
  /** For the nth worker, under a role of its own, so that its backends can be told from others'. */
  target(worker: number): DatabaseTarget
  /** Terminates the backends of the nth worker; resolves with how many there were. */
  terminate(worker: number): Promise<number>
  /** Asks as an observer, again and again while the server is away. */
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>
}

const log = silentLog()
const TEMPLATE = 'template_kernel'
/** One for each worker that a scene may have at a time, and for the one that comes in another's place. */
export const ROLES = ['kernel_1', 'kernel_2', 'kernel_3'] as const
const OBSERVER = 'observer'
/** More than 8 sagas can use at a time: what is held twice shall not be hidden by a lack. */
const POOL_DEVICES = 32

export async function openLane(): Promise<Lane> {
  const folder = await temporaryFolder('chaos-')
  const boot = () => startEmbeddedPostgres({ dataDir: folder, projectDir: folder, durability: 'none', log })
  let server: EmbeddedPostgres = await boot()
  const { adminUrl } = server
  await makeRoles(adminUrl)
  await ensureTemplate(adminUrl, TEMPLATE, buildTemplate)
  return {
    async database() {
      const clone = await cloneTemplate(adminUrl, TEMPLATE)
      const observer = openDatabase<unknown>({
        ...{
          url: retarget(clone.url, { user: OBSERVER }),
          log,
          schema: SCHEMA,
          poolSize: 2,
          applicationName: 'observer',
        },
      })
      const observe = <Row extends object>(text: string, values: readonly unknown[] = []) =>
        insist(
          async () => (await observer.prepared.executeQuery<Row>(CompiledQuery.raw(text, [...values]))).rows,
        )
      return {
        async drop() {
          await observer.close()
          await clone.drop()
        },
        target: (worker) => retarget(clone.url, { user: roleOf(worker) }),
        async terminate(worker) {
          const ended = await observe(
            `select pg_terminate_backend(pid) from pg_stat_activity
             where usename = $1 and datname = current_database()`,
            [roleOf(worker)],
          )
          return ended.length
        },
        query: observe,
      }
    },
    async crash() {
      process.kill(server.pid, 'SIGQUIT')
      // Ends as soon as the process is gone, and gives the data directory free.
      await server.stop()
    },
    async start() {
      server = await boot()
    },
    async [Symbol.asyncDispose]() {
      await server.stop()
      await rm(server.dataDir, { recursive: true, force: true })
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function insist<Result>(work: () => Promise<Result>): Promise<Result> {
  const { found } = await until('PostgreSQL to answer', async () => {
    try {
      return { found: await work() }
    } catch (error) {
      if (isUnavailable(error)) return undefined
      throw error
    }
  })
  return found
}

function roleOf(worker: number): string {
  const role = ROLES[worker]
  if (role === undefined)
    throw new RangeError(`a cell has at most ${ROLES.length} workers, not ${worker + 1}`)
  return role
}

async function makeRoles(adminUrl: DatabaseTarget): Promise<void> {
  const { password } = describeTarget(adminUrl)
  await withClient(adminUrl, 'chaos', async (client) => {
    // A world opens some twenty connections: at the usual 4,096 rounds their passwords cost more than its sagas.
    await client.query('set scram_iterations = 1')
    for (const role of [...ROLES, OBSERVER])
      await client.query(`create role ${role} superuser login password ${client.escapeLiteral(password)}`)
  })
}

async function buildTemplate(url: DatabaseTarget): Promise<void> {
  const directories = [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS, OUTBOX_MIGRATIONS, INBOX_MIGRATIONS]
  await migrate({ url, schema: SCHEMA, directories, log })
  await migrate({ url, schema: 'bus', directories: [APP_NOW_MIGRATIONS, EMBEDDED_BUS_MIGRATIONS], log })
  await withClient(url, 'chaos', async (client) => {
    await client.query(`set search_path to ${SCHEMA}`)
    await client.query(`${PURCHASE_TABLES}${CREATION_TABLES}${EFFECT_TABLE}
      insert into plan values ('basic', 9900000);
      insert into quota values ('tenant', 0, 1000);
      insert into pool_device select 'device-' || n from generate_series(1, ${POOL_DEVICES}) n`)
  })
}
