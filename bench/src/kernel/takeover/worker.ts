/* A process that runs the drill's sagas until it is killed. */
import { openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openSagas } from '@cloudphone/saga/engine'
import pg from 'pg'
import { drillSaga, LEASE_TTL_MS, SCHEMA } from './drill-saga.ts'

const [url = '', worker = ''] = process.argv.slice(2)
const log = silentLog()
const database = openDatabase({ url, schema: SCHEMA, poolSize: 8, applicationName: worker, log })
const executor = holdExecutor({ url, applicationName: worker, log })
await executor.held()
const world = new pg.Pool({ connectionString: url, max: 8 })
const sagas = openSagas({
  ...{ database, executor, log, metrics: openMetrics(worker), leaseTtlMs: LEASE_TTL_MS },
  definitions: [drillSaga({ world, worker })],
})
await sagas.run()
process.send?.('ready')
// A parent that is gone must not leave us behind.
process.on('disconnect', () => process.exit(0))
