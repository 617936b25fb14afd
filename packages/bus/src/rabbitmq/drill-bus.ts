import { drillTopology, type OpenDrillBus } from '../drill/room.ts'
import { openRabbitBus, type RabbitBusOptions } from './rabbit-bus.ts'

/** Where the drill's broker is, and how patient the bus is with it. */
export type RabbitDrillSettings = Pick<
  RabbitBusOptions,
  'url' | 'heartbeatSeconds' | 'connectTimeoutMs' | 'confirmTimeoutMs'
>

/** Opens the RabbitMQ bus for `bus.contract.ts`, in the test's process or in a child, both of which import it by URL. @public */
export const openDrillBus: OpenDrillBus = async ({ settings, consumerTtlMs: _, ...options }) =>
  openRabbitBus({
    ...options,
    ...(settings as RabbitDrillSettings),
    subscriptions: drillTopology,
  })
