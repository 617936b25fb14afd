import { ProviderType } from '@cloudphone/contracts/device'
import { z } from 'zod'

/** `15000-29999`: both ends belong to it. */
export interface PortRange {
  readonly first: number
  readonly last: number
}

const PortRangeSetting = z
  .string()
  .regex(/^\d{1,5}-\d{1,5}$/, 'must look like 15000-29999')
  .transform((text): PortRange => {
    const [first = 0, last = 0] = text.split('-').map(Number)
    return { first, last }
  })
  .refine(
    ({ first, last }) => first >= 1024 && first <= last && last <= 65_535,
    'must rise within 1024-65535',
  )
  // The adb server claims listeners on 5555-5585 as emulators of its own.
  .refine(({ first, last }) => last < 5555 || first > 5585, 'must not touch 5555-5585')

const whole = (least: number, most: number) => z.coerce.number().int().min(least).max(most)

/** Settings of the devices service; the defaults work on a laptop. */
export const DevicesSettings = z.object({
  /** The phone host's unix socket. */
  DEVICES_PHONE_HOST_SOCKET: z.string().min(1).default('.cloudphone/phone-host/phone-host.sock'),
  DEVICES_DEFAULT_PROVIDER: ProviderType.default('simulated'),
  DEVICES_ADB_PORTS: PortRangeSetting.prefault('15000-29999'),
  /** How long a port rests after use: old connections and adb servers forget it in that time. */
  DEVICES_PORT_COOLDOWN_SECONDS: whole(0, 86_400).default(60),
  DEVICES_BOOT_WAIT_SECONDS: whole(1, 600).default(60),
  /** How long a simulated phone boots. */
  DEVICES_SIM_BOOT_MS: whole(0, 600_000).default(3000),
  /** What the local node may hand out: simulated phones only pretend to use it. */
  DEVICES_NODE_NAME: z.string().min(1).max(64).default('local'),
  DEVICES_NODE_CPU: whole(1, 1_000_000).default(20_000),
  DEVICES_NODE_MEMORY_MB: whole(512, 2_000_000_000).default(40_000_000),
  DEVICES_NODE_PHONES: whole(1, 100_000).default(5000),
  /** How often a failed phone is started again; 0 leaves it alone. */
  DEVICES_RESTART_ATTEMPTS: whole(0, 100).default(3),
  DEVICES_RESTART_BACKOFF_MS: whole(0, 3_600_000).default(1000),
  /** Whether a user may get phones, five at most, while the users service does not answer. */
  QUOTA_ALLOW_ON_ERROR: z.stringbool().default(false),
  /** How often it is tried to settle the quota of such phones. */
  DEVICES_QUOTA_SETTLE_MS: whole(50, 600_000).default(5000),
  DEVICES_RECONCILE_MS: whole(50, 600_000).default(5000),
})
export type DevicesSettings = z.output<typeof DevicesSettings>
