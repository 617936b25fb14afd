import { randomUUID } from 'node:crypto'
import { type Database, openDatabase } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { saga } from '@cloudphone/saga/builder'
import { openSagas, SAGA_MIGRATIONS, type Sagas } from '@cloudphone/saga/engine'
import { closedLoop, type LoopOutcome } from '../../harness/samples.ts'
import { type Contestant, demandEqual } from '../contestant.ts'
import { type SagaOrder, type SagaSettings, STEPS, stepResult } from './saga-order.ts'
import { numbers, truncate } from './tables.ts'

const SCHEMA = 'bench'
const WAIT_MS = 60_000

interface Opened {
  readonly database: Database<unknown>
  readonly executor: Executor
  readonly sagas: Sagas
}

/** Five no-op steps by our engine. Whoever starts a saga waits for its outcome. @public */
export function openContestant({ url, poolSize }: SagaSettings): Contestant<SagaOrder, LoopOutcome> {
  const log = silentLog()
  let stepsRun = 0
  let opened: Opened | undefined
  const step = <Name extends string>(name: Name) => {
    const result = stepResult(name)
    return async (): Promise<Record<Name, string>> => {
      stepsRun += 1
      return result
    }
  }
  const definitions = {
    call: saga('bench_call', 1, { timeoutMs: 600_000 })
      .input<{ n: number }>()
      .call('ONE', step('one'))
      .call('TWO', step('two'))
      .call('THREE', step('three'))
      .call('FOUR', step('four'))
      .call('FIVE', step('five'))
      .end(),
    local: saga('bench_local', 1, { timeoutMs: 600_000 })
      .input<{ n: number }>()
      .local('ONE', step('one'))
      .local('TWO', step('two'))
      .local('THREE', step('three'))
      .local('FOUR', step('four'))
      .local('FIVE', step('five'))
      .end(),
  }
  const here = (): Opened => {
    if (opened === undefined) throw new Error('the contestant is not open')
    return opened
  }
  return {
    async setUp() {
      await migrate({ url, schema: SCHEMA, directories: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS], log })
    },
    clear: () => truncate(url, { schema: SCHEMA, keep: ['schema_migrations'] }),
    async open({ concurrency }) {
      const database = openDatabase({ url, schema: SCHEMA, poolSize, applicationName: 'bench', log })
      const executor = holdExecutor({ url, applicationName: 'bench executor', log })
      await executor.held()
      const sagas = openSagas({
        database,
        executor,
        definitions: [definitions.call, definitions.local],
        log,
        metrics: openMetrics('bench'),
        concurrency,
      })
      await sagas.run()
      stepsRun = 0
      opened = { database, executor, sagas }
    },
    async work({ steps, start, concurrency, durationMs }) {
      const { database, sagas } = here()
      return await closedLoop({
        concurrency,
        durationMs,
        once: async () => {
          const order = { definition: definitions[steps], businessKey: randomUUID(), input: { n: 1 } }
          const { sagaId } = await (start === 'alone'
            ? sagas.startAlone(order)
            : database.transaction((tx) => sagas.start(tx, order)))
          const outcome = await sagas.waitForOutcome(sagaId, { timeoutMs: WAIT_MS })
          if (outcome?.status !== 'COMPLETED')
            throw new Error(`saga ${sagaId} is ${outcome?.status ?? 'gone'}`)
        },
      })
    },
    async close() {
      const { database, executor, sagas } = here()
      await sagas.stop()
      await executor.close()
      await database.close()
      opened = undefined
    },
    async audit({ count }) {
      const found = await numbers<'sagas' | 'completed'>(
        url,
        `select count(*) as sagas, count(*) filter (where status = 'COMPLETED') as completed from ${SCHEMA}.saga_state`,
      )
      demandEqual('sagas', found.sagas, count)
      demandEqual('completed sagas', found.completed, count)
      demandEqual('steps run', stepsRun, count * STEPS)
    },
  }
}
