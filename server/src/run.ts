import { StopForShutdown } from '@cloudphone/contracts/api/devices-api'
import type { Logger } from '@cloudphone/observe/log'
import { ClosingStack } from '@cloudphone/runtime/closing'
import { readSettings } from '@cloudphone/runtime/config'
import { type RunningService, startService } from '@cloudphone/runtime/host'
import type { AnyService } from '@cloudphone/runtime/service'
import { openServiceClient } from '@cloudphone/runtime/service-client'
import { openServiceTokens } from '@cloudphone/runtime/tokens'
import { type OpenPlatform, openPlatform } from './platform/platform.ts'
import { checkPorts } from './ports.ts'
import { selected } from './roster.ts'
import { readSecrets, type Secrets, serviceEnv } from './secrets.ts'
import type { Settings } from './settings.ts'

/** A platform that runs. */
export interface RunningServer {
  readonly services: readonly RunningService[]
  readonly secrets: Secrets
  readonly notes: readonly string[]
  /** `stop`: phones are stopped and come back at the next start. `keep`: the phone host goes on without us. */
  shutDown(phones: 'stop' | 'keep'): Promise<void>
}

/** Starts the platform and the selected services; when one fails, everything is closed again and its error thrown. */
export async function startServer(settings: Settings, log: Logger): Promise<RunningServer> {
  const roster = selected(settings.services)
  await checkPorts(roster, settings.host, settings.portBase)
  const secrets = await readSecrets(settings)
  checkSettings(roster, settings, secrets)
  const opened = await openPlatform(settings, secrets, log)
  const running = new ClosingStack(log)
  const services: RunningService[] = []
  const launch = async (definition: AnyService, options: { showsPlatform: boolean }): Promise<void> => {
    const service = await startService(definition, opened.platform, options)
    services.push(running.add(definition.name, service))
  }
  try {
    // Side by side, since they wait for the database more than they compute; the gateway last, when all can answer.
    const [inner, door] = [
      roster.filter(({ name }) => name !== 'gateway'),
      roster.filter(({ name }) => name === 'gateway'),
    ]
    for (const group of [inner, door]) {
      const started = await Promise.allSettled(
        group.map((one) => launch(one, { showsPlatform: one === roster[0] })),
      )
      const failed = started.find((one) => one.status === 'rejected')
      if (failed !== undefined) throw failed.reason
    }
  } catch (error) {
    await closeAll(running, opened, 'take back', log)
    throw error
  }
  return {
    services,
    secrets,
    notes: opened.notes,
    shutDown: async (phones) => {
      if (phones === 'stop' && opened.phoneHost !== undefined) await stopPhones(opened, log)
      await closeAll(running, opened, phones, log)
    },
  }
}

/** Reads every service's settings before anything is started, so that a wrong one costs nothing. @throws SettingError */
function checkSettings(roster: readonly AnyService[], settings: Settings, secrets: Secrets): void {
  for (const service of roster) readSettings(service.settings, serviceEnv(settings, secrets))
}

async function closeAll(
  running: ClosingStack,
  opened: OpenPlatform,
  phones: 'stop' | 'keep' | 'take back',
  log: Logger,
): Promise<void> {
  await running.close().catch((error: unknown) => log.error({ event: 'server.drain_failed', err: error }))
  if (phones === 'stop') await opened.phoneHost?.stop()
  else if (phones === 'keep') await opened.phoneHost?.leave()
  else await opened.phoneHost?.takeBack()
  await opened.close()
}

/** While everything still works: phones are stopped in good order, metering closed, and marked to come back. */
async function stopPhones({ platform }: OpenPlatform, log: Logger): Promise<void> {
  const serviceTokens = openServiceTokens({ secret: platform.serviceSecret, now: () => new Date() })
  const client = openServiceClient({ self: 'gateway', registry: platform.registry, serviceTokens })
  try {
    const { stopped } = await client.call(StopForShutdown, { timeoutMs: 60_000 })
    log.info({ event: 'server.phones_stopped', count: stopped })
  } catch (error) {
    log.error({ event: 'server.phones_not_stopped', err: error })
  } finally {
    await client.close()
  }
}
