import { defineService } from '@cloudphone/runtime/service'
import { BillingSettings } from './config.ts'
import { allocationEvents } from './consumers/allocation-events.ts'
import { deviceEvents } from './consumers/device-events.ts'
import type { BillingSchema } from './db/schema.ts'
import { judgeInvariants } from './domain/invariants.ts'
import { Metering } from './domain/metering.ts'
import { UsageService } from './domain/usage-service.ts'
import { usageRoutes } from './http/usage.routes.ts'
import { openTelemetry } from './telemetry.ts'

/** What phones were used for how long, and what that costs. */
export const billing = defineService<typeof BillingSettings, BillingSchema>({
  name: 'billing',
  settings: BillingSettings,
  migrations: new URL('./db/migrations/', import.meta.url),
  start: async ({ settings, database, log, metrics }) => {
    const telemetry = openTelemetry(log, metrics)
    const metering = new Metering({ priceMicroPerHour: settings.BILLING_PRICE_MICRO_PER_HOUR, telemetry })
    const usage = new UsageService({ database })
    return {
      routes: usageRoutes(usage),
      handlers: [...deviceEvents(metering), ...allocationEvents(metering)],
      invariants: () => judgeInvariants(database),
    }
  },
})
