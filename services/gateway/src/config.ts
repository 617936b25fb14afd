import { z } from 'zod'
import { isRange } from './domain/client-address.ts'
import { isOrigin } from './domain/cors.ts'

const whole = (byDefault: number, from: number) => z.coerce.number().int().min(from).default(byDefault)
const limit = (byDefault: number) => z.coerce.number().int().min(0).max(1_000_000).default(byDefault)

/** Reads a list with commas between; what is no entry of it makes the setting wrong. */
function listOf(isEntry: (entry: string) => boolean, kind: string) {
  return (value: string, context: z.RefinementCtx): readonly string[] => {
    const entries = value
      .split(',')
      .map((entry) => entry.trim())
      .filter((entry) => entry !== '')
    const wrong = entries.find((entry) => !isEntry(entry))
    if (wrong === undefined) return entries
    context.addIssue(`'${wrong}' is not ${kind}`)
    return z.NEVER
  }
}

const originsOf = listOf(isOrigin, 'an origin such as https://console.example.com')
const proxiesOf = listOf(isRange, 'an address or a range such as 10.0.0.0/8')

/** The settings of the gateway. Limits count requests per caller (user, else address); 0 switches one off. */
export const GatewaySettings = z.object({
  GATEWAY_LIMIT_PER_SECOND: limit(10),
  GATEWAY_LIMIT_PER_10_SECONDS: limit(100),
  GATEWAY_LIMIT_PER_MINUTE: limit(500),
  /** The slowest pace of a body, over the window: slower ones are cut off. */
  GATEWAY_BODY_MIN_BYTES_PER_SECOND: whole(1_024, 0),
  GATEWAY_BODY_WINDOW_MS: whole(10_000, 100),
  /** Of one address at a time; 0 for no limit. */
  GATEWAY_CONNECTIONS_PER_ADDRESS: whole(1_000, 0),
  GATEWAY_CORS_ORIGINS: z.string().default('').transform(originsOf),
  GATEWAY_TRUSTED_PROXIES: z.string().default('').transform(proxiesOf),
  GATEWAY_BEHIND_TLS: z
    .enum(['true', 'false'])
    .default('false')
    .transform((value) => value === 'true'),
})
export type GatewaySettings = z.output<typeof GatewaySettings>
