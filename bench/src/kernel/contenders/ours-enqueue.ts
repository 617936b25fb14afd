import { type Database, openDatabase } from '@cloudphone/db/database'
import { type Executor, holdExecutor } from '@cloudphone/db/executor'
import { APP_NOW_MIGRATIONS, migrate } from '@cloudphone/db/migrate'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { saga } from '@cloudphone/saga/builder'
import { openSagas, SAGA_MIGRATIONS, type Sagas } from '@cloudphone/saga/engine'
import { openLoop } from '../../harness/samples.ts'
import { type Contestant, demandEqual } from '../contestant.ts'
import { type EnqueueOrder, type EnqueueOutcome, FirstSteps } from './enqueue-order.ts'
import type { SagaSettings } from './saga-order.ts'
import { numbers, truncate } from './tables.ts'

const SCHEMA = 'bench'

/** A saga of one call: from the request to start it to the first line of its step. @public */
export function openContestant({ url, poolSize }: SagaSettings): Contestant<EnqueueOrder, EnqueueOutcome> {
  const log = silentLog()
  const steps = new FirstSteps()
  const definition = saga('bench_enqueue', 1, { timeoutMs: 600_000 })
    .input<{ n: number }>()
    .call('FIRST', async ({ n }) => steps.begin(n))
    .end()
  let opened: { database: Database<unknown>; executor: Executor; sagas: Sagas } | undefined
  return {
    async setUp() {
      await migrate({ url, schema: SCHEMA, directories: [APP_NOW_MIGRATIONS, SAGA_MIGRATIONS], log })
    },
    clear: () => truncate(url, { schema: SCHEMA, keep: ['schema_migrations'] }),
    async open() {
      const database = openDatabase({ url, schema: SCHEMA, poolSize, applicationName: 'bench', log })
      const executor = holdExecutor({ url, applicationName: 'bench executor', log })
      await executor.held()
      const metrics = openMetrics('bench')
      const sagas = openSagas({ database, executor, definitions: [definition], log, metrics })
      await sagas.run()
      steps.clear()
      opened = { database, executor, sagas }
    },
    async work({ count, perSecond }) {
      if (opened === undefined) throw new Error('the contestant is not open')
      const { database, sagas } = opened
      const send = async (n: number): Promise<void> => {
        const begun = steps.await(n)
        await database.transaction((tx) =>
          sagas.start(tx, { definition, businessKey: `enqueue-${n}`, input: { n } }),
        )
        await begun
      }
      const sent = await openLoop({ count, perSecond, send })
      await sagas.drain()
      return { count, latenciesMs: sent.map(({ ms }) => ms) }
    },
    async close() {
      await opened?.sagas.stop()
      await opened?.executor.close()
      await opened?.database.close()
      opened = undefined
    },
    async audit({ count }) {
      const { completed } = await numbers<'completed'>(
        url,
        `select count(*) filter (where status = 'COMPLETED') as completed from ${SCHEMA}.saga_state`,
      )
      demandEqual('completed sagas', completed, count)
      demandEqual('steps run', steps.runs, count)
    },
  }
}
