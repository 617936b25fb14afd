import { z } from 'zod'

const limit = (byDefault: number) => z.coerce.number().int().min(0).max(1_000_000).default(byDefault)

/** The settings of the gateway. Limits count requests per caller (user, else address); 0 switches one off. */
export const GatewaySettings = z.object({
  GATEWAY_LIMIT_PER_SECOND: limit(10),
  GATEWAY_LIMIT_PER_10_SECONDS: limit(100),
  GATEWAY_LIMIT_PER_MINUTE: limit(500),
})
export type GatewaySettings = z.output<typeof GatewaySettings>
