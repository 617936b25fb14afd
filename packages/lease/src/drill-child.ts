/* A process to be killed or frozen while it runs a leased loop: tells its parent of each turn, one line `turn <epoch>`. */

import { openDatabase } from '@cloudphone/db/database'
import { holdExecutor } from '@cloudphone/db/executor'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openLeases } from './open-leases.ts'

const [url = '', schema = '', name = ''] = process.argv.slice(2)
const log = silentLog()
const database = openDatabase({ url, schema, poolSize: 2, applicationName: 'lease drill', log })
const executor = holdExecutor({ url, applicationName: 'lease drill executor', log })
const leases = openLeases({ database, executor, log, metrics: openMetrics('child') })
leases.loop({
  name,
  everyMs: 20,
  async work({ epoch, signal }) {
    process.stdout.write(`turn ${epoch}\n`)
    signal.addEventListener('abort', () => process.stdout.write('lost\n'), { once: true })
  },
})
// A parent that is gone must not leave us behind.
process.stdin.on('end', () => process.exit(0)).resume()
