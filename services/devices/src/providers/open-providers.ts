import type { ProviderType } from '@cloudphone/contracts/device'
import type { Clock } from '@cloudphone/observe/clock'
import type { DevicesSettings } from '../config.ts'
import type { Provider } from './provider.ts'
import { openSimulatedProvider } from './simulated/provider.ts'

export type Providers = Readonly<Record<ProviderType, Provider>>

/** Opens every kind of provider that this release has. */
export function openProviders(settings: DevicesSettings, clock: Clock): Providers {
  return {
    simulated: openSimulatedProvider({
      socketPath: settings.DEVICES_PHONE_HOST_SOCKET,
      bootMs: settings.DEVICES_SIM_BOOT_MS,
      clock,
    }),
  }
}
