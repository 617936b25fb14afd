import { openMemoryCache } from '@cloudphone/cache/memory-cache'
import { gateway } from '@cloudphone/gateway'
import { systemClock } from '@cloudphone/observe/clock'
import { crashPoints } from '@cloudphone/observe/crash-point'
import { openLog } from '@cloudphone/observe/log'
import { openMetrics } from '@cloudphone/observe/metrics'
import { openTracing } from '@cloudphone/observe/tracing'
import { staticRegistry } from '@cloudphone/registry/registry'
import { startStatelessService } from '@cloudphone/runtime/host'
import type { OpenDoor } from '../door.ts'

/** The gateway as the platform starts it: tokens, limits, traces carried on and one in a hundred told to a collector. */
export const openDoor: OpenDoor = async ({ upstream, sink, users, collector, serviceSecret }) => {
  const log = openLog({ level: 'warn', format: 'json' })
  const metrics = openMetrics('bench')
  const { address } = await startStatelessService(gateway, {
    // Limits are counted, and never reached.
    env: {
      GATEWAY_LIMIT_PER_SECOND: '1000000',
      GATEWAY_LIMIT_PER_10_SECONDS: '1000000',
      GATEWAY_LIMIT_PER_MINUTE: '1000000',
    },
    ...{ log, metrics, serviceSecret, crash: crashPoints(undefined), host: '127.0.0.1', portBase: 0 },
    cache: openMemoryCache(systemClock),
    registry: staticRegistry({ devices: [upstream], apps: [sink], users: [users] }),
    tracing: openTracing({
      endpoint: collector,
      ...{ sampler: 'parentbased_traceidratio', ratio: 0.01, log, metrics },
    }),
  })
  return address
}
