import { randomUUID } from 'node:crypto'
import { holdExecutor, isExecutorAlive } from '@cloudphone/db/executor'
import { silentLog } from '@cloudphone/observe/log'
import { sql } from 'kysely'
import { afterAll, beforeAll } from 'vitest'
import { saga } from './builder.ts'
import type { Sagas } from './engine.ts'
import { takeReply } from './operate.ts'
import { postgresStore } from './postgres-store.ts'
import { CONTRACT_SAGA, type StoreHarness, storeContract } from './store.contract.ts'
import { until } from './testing/toy.ts'
import { begin, openWorkshop, rowOf, thingsOf, type Workshop, type WorldTx } from './testing/workshop.ts'

const definition = saga(CONTRACT_SAGA.type, CONTRACT_SAGA.version, { timeoutMs: CONTRACT_SAGA.timeoutMs })
  .input<object, WorldTx>()
  .local(CONTRACT_SAGA.steps[0], async () => undefined)
  .local(CONTRACT_SAGA.steps[1], async () => undefined)
  .end()

// A database for all of them, emptied after each: making one takes longer than most of the tests.
let workshop: Workshop
let sagas: Sagas
beforeAll(async () => {
  workshop = await openWorkshop()
  // Never runs: it is here to start sagas.
  sagas = (await workshop.engine({ definitions: [definition] })).sagas
})
afterAll(() => workshop[Symbol.asyncDispose]())

async function openPostgres(): Promise<StoreHarness<WorldTx>> {
  const { database, testDatabase, clock } = workshop
  const closers: (() => Promise<void>)[] = []
  return {
    store: postgresStore(database),
    start: () => begin(workshop, sagas, definition, { input: {}, businessKey: randomUUID() }),
    reply: (sagaId, step, outcome) => database.transaction((tx) => takeReply(tx, { sagaId, step, outcome })),
    async openExecutor() {
      const executor = holdExecutor({ url: testDatabase.url, applicationName: 'contract', log: silentLog() })
      closers.push(() => executor.close())
      const { id } = await executor.held()
      return {
        id,
        async die() {
          await executor.close()
          await untilGone(id)
        },
      }
    },
    advance: (ms) => clock.advance(ms),
    async read(sagaId) {
      const row = await rowOf(workshop, sagaId)
      const { rows } = await database.pool.query<{ next_run_in_ms: number }>(
        `select (extract(epoch from next_run_at - app_now()) * 1000)::float8 as next_run_in_ms
         from saga_state where saga_id = $1`,
        [sagaId],
      )
      return {
        status: String(row.status),
        fence: Number(row.fence),
        version: Number(row.version),
        deaths: Number(row.deaths),
        leaseOwner: row.lease_owner === null ? null : String(row.lease_owner),
        state: row.state as Record<string, unknown>,
        nextRunInMs: rows[0]?.next_run_in_ms ?? Number.NaN,
      }
    },
    async log(sagaId) {
      const { rows } = await database.pool.query(
        `select step, direction, attempt, status, error, executor, fence::int from saga_step_log
         where saga_id = $1 order by id`,
        [sagaId],
      )
      return rows
    },
    async put(tx, key) {
      await tx.insertInto('things').values({ key, saga_id: 'contract' }).execute()
    },
    things: () => thingsOf(workshop),
    async [Symbol.asyncDispose]() {
      await Promise.all(closers.map((close) => close()))
      await database.pool.query('truncate saga_state, saga_step_log, things')
    },
  }

  /** The server lets go of the lock some moments after the socket is closed. */
  async function untilGone(id: string): Promise<void> {
    await until(async () => {
      const { rows } = await sql<{ alive: boolean }>`select ${isExecutorAlive(id)} as alive`.execute(
        database.kysely,
      )
      return rows[0]?.alive === false
    })
  }
}

storeContract('PostgreSQL', openPostgres)
