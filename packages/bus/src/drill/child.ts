/* A process to be killed: opens the bus and the drill's room as told by its one argument, and works until it dies. */
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { type OpenDrillBus, startRoom } from './room.ts'

/** What the parent tells its child. */
export interface ChildOrder {
  /** Of the adapter's drill module. */
  readonly adapter: string
  readonly settings: unknown
  readonly url: string
  readonly schema: string
  /** As `CLOUDPHONE_CRASH_POINTS`. */
  readonly crash: string
}

const order: ChildOrder = JSON.parse(process.argv[2] ?? '')
const { openDrillBus }: { openDrillBus: OpenDrillBus } = await import(order.adapter)
const crash = crashPoints(order.crash)
const log = silentLog()
const bus = await openDrillBus({
  settings: order.settings,
  log,
  metrics: openMetrics('child'),
  crash,
  retryDelaysMs: [20, 40, 60],
})
await startRoom({ bus, url: order.url, schema: order.schema, log, crash })
process.stdout.write('ready\n')
// A parent that is gone must not leave us behind.
process.stdin.on('end', () => process.exit(0)).resume()
