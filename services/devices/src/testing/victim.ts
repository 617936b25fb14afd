/* A devices service in a process of its own, for drills that kill it. Reads its surroundings from VICTIM (JSON), tells its
 * address on stdout and runs until it is killed. */
import { openDirectoryStore } from '@cloudphone/blobs/directory-store'
import { openEmbeddedBus } from '@cloudphone/bus/embedded/embedded-bus'
import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import { systemClock } from '@cloudphone/observe/clock'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { silentLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { staticRegistry } from '@cloudphone/registry/registry'
import { startService } from '@cloudphone/runtime/host'
import { devices } from '../service.ts'

/** What a victim needs to know. */
export interface VictimSettings {
  readonly env: Record<string, string>
  readonly crashPoints: string
  readonly serviceSecret: string
  readonly databases: Record<'devices' | 'bus', { url: string; schema: string }>
  readonly blobFolder: string
  readonly neighbours: Record<'users' | 'apps', readonly string[]>
}

const settings: VictimSettings = JSON.parse(process.env.VICTIM ?? '{}')
const log = silentLog()
const metrics = openMetrics('victim')
const crash = crashPoints(settings.crashPoints)
const running = await startService(devices, {
  env: settings.env,
  log,
  registry: staticRegistry(settings.neighbours),
  cache: openMemoryCache(systemClock),
  bus: openEmbeddedBus({ ...settings.databases.bus, log, metrics, crash: crashPoints(undefined) }),
  blobs: await openDirectoryStore(settings.blobFolder),
  crash,
  metrics,
  serviceSecret: settings.serviceSecret,
  databases: settings.databases,
  poolSize: 5,
  host: '127.0.0.1',
  portBase: 0,
})
process.stdout.write(`${running.address}\n`)
