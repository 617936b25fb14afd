import { MicroUnits } from '@cloudphone/contracts/money'
import { z } from 'zod'

/** The settings of the billing service. */
export const BillingSettings = z.object({
  /** What an hour of a phone costs, in millionths of the currency's unit; records keep the price of their start. */
  BILLING_PRICE_MICRO_PER_HOUR: z.coerce
    .number()
    .pipe(MicroUnits.min(0).max(1_000_000_000_000))
    .default(1_000_000),
})
export type BillingSettings = z.output<typeof BillingSettings>
