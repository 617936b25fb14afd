/* A process of its own that runs toy sagas until it is killed. Its log, on standard output, tells what it does. */
import { holdExecutor } from '@cloudphone/db/executor'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { openLog, silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openSagas } from '../engine.ts'
import { toySaga } from './toy.ts'
import { openWorld } from './workshop.ts'

const [url = '', types = '', leaseTtlMs = ''] = process.argv.slice(2)
const database = openWorld(url)
const executor = holdExecutor({ url, applicationName: 'worker', log: silentLog() })
await executor.held()
const log = openLog({ level: 'debug', format: 'json', destination: process.stdout })
const sagas = openSagas({
  database,
  executor,
  definitions: types.split(',').map((type) => toySaga(type, database)),
  log,
  metrics: openMetrics('worker'),
  crash: crashPoints(process.env.CLOUDPHONE_CRASH_POINTS),
  leaseTtlMs: Number(leaseTtlMs),
  sweepMs: 100,
})
await sagas.run()
log.info({ event: 'worker.ready' })
