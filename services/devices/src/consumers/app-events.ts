import { on } from '@cloudphone/bus/consumer'
import { AppInstallRequested } from '@cloudphone/contracts/events/app-events'
import { beginInstallation } from '../domain/app-install-service.ts'

type Tx = Parameters<typeof beginInstallation>[0]
type Parts = Parameters<typeof beginInstallation>[1]

/** Queue `device-service.app-install`. */
export function appEvents(parts: Parts) {
  return [on(AppInstallRequested, async (tx: Tx, { data }) => await beginInstallation(tx, parts, data))]
}
