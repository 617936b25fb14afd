import type { DatabaseTarget } from '@cloudphone/db/target'
import { drillTopology, type OpenDrillBus } from '../drill/room.ts'
import { openEmbeddedBus } from './embedded-bus.ts'

/** Where the drill's bus lies. */
export interface EmbeddedDrillSettings {
  readonly url: DatabaseTarget
  readonly schema: string
}

/** Opens the embedded bus for `bus.contract.ts`, in the test's process or in a child, both of which import it by URL. @public */
export const openDrillBus: OpenDrillBus = async ({ settings, ...options }) =>
  openEmbeddedBus({
    ...options,
    ...(settings as EmbeddedDrillSettings),
    subscriptions: drillTopology,
  })
