import { type Database, openDatabase, type Tx } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import {
  createTestDatabase,
  type TestClock,
  type TestDatabase,
  testClock,
} from '@cloudphone/testing/postgres'
import type { SagaDefinition } from '../definition.ts'
import { openSagas, SAGA_MIGRATIONS, type Sagas, type SagasOptions } from '../engine.ts'

/** The outside world of the tests: things made under a key, and every touch by which they were made or removed. */
export interface WorldSchema {
  things: { key: string; saga_id: string }
  touches: { id?: number; saga_id: string; step: string; direction: string; key: string; fence: number }
  notes: { saga_id: string; text: string }
}

export type WorldTx = Tx<WorldSchema>

export interface Workshop extends AsyncDisposable {
  readonly testDatabase: TestDatabase
  readonly database: Database<WorldSchema>
  readonly clock: TestClock
  /** Opens an engine of its own, as another process would. */
  engine(options: EngineOptions): Promise<Engine>
}

type EngineOptions = Pick<SagasOptions<WorldSchema>, 'definitions'> & Partial<SagasOptions<WorldSchema>>

export interface Engine {
  readonly sagas: Sagas
  readonly executor: Executor
  readonly metrics: ReturnType<typeof openMetrics>
}

const SCHEMA = 'workshop'

/** A database with the tables of the engine and of the world. */
export async function openWorkshop(): Promise<Workshop> {
  const testDatabase = await createTestDatabase({
    schema: SCHEMA,
    migrations: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS],
  })
  const clock = testClock(testDatabase)
  const database = openWorld(testDatabase.url)
  await database.pool.query(`
    create table things (key text primary key, saga_id text not null);
    create table touches (id bigint generated always as identity, saga_id text not null, step text not null,
      direction text not null, key text not null, fence bigint not null);
    create table notes (saga_id text not null, text text not null)`)
  const closers: (() => Promise<void>)[] = []
  return {
    testDatabase,
    database,
    clock,
    async engine(options) {
      const executor = holdExecutor({
        url: testDatabase.url,
        applicationName: 'test executor',
        log: silentLog(),
      })
      await executor.held()
      const metrics = openMetrics('test')
      const sagas = openSagas({ database, executor, log: silentLog(), metrics, clock, ...options })
      closers.push(async () => {
        await sagas.stop()
        await executor.close()
      })
      return { sagas, executor, metrics }
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(closers.map((close) => close()))
      await database.close()
      await testDatabase.drop()
    },
  }
}

/** A pool on the world's tables. */
export function openWorld(url: string): Database<WorldSchema> {
  return openDatabase<WorldSchema>({
    url,
    schema: SCHEMA,
    poolSize: 8,
    applicationName: 'test',
    log: silentLog(),
  })
}

/** Starts a saga in a transaction of its own and gives its id. */
export async function begin<Input extends object>(
  workshop: Workshop,
  sagas: Sagas,
  definition: SagaDefinition<Input, WorldTx>,
  { input, businessKey = 'request-1', subject }: { input: Input; businessKey?: string; subject?: string },
): Promise<string> {
  const { sagaId } = await workshop.database.transaction((tx) =>
    sagas.start(tx, { definition, businessKey, subject, input, userId: 'user-1', tenantId: 'tenant-1' }),
  )
  return sagaId
}

/** A row as the seed's documents look at it. */
export async function rowOf(workshop: Workshop, sagaId: string): Promise<Record<string, unknown>> {
  const { rows } = await workshop.database.pool.query<Record<string, unknown>>(
    'select * from saga_state where saga_id = $1',
    [sagaId],
  )
  const row = rows[0]
  if (row === undefined) throw new Error(`No saga ${sagaId}`)
  return row
}

/** Keys of the things that the world holds. */
export async function thingsOf(workshop: Workshop): Promise<string[]> {
  const rows = await workshop.database.kysely.selectFrom('things').select('key').orderBy('key').execute()
  return rows.map(({ key }) => key)
}
