import { z } from 'zod'

const twoGiB = 2 * 1024 ** 3

export const AppsSettings = z.object({
  /** The largest APK that may be uploaded. */
  APPS_MAX_APK_BYTES: z.coerce.number().int().min(1).max(twoGiB).default(twoGiB),
  /** An installation that nobody has ended after so long has failed. */
  APPS_INSTALL_TIMEOUT_MINUTES: z.coerce.number().int().min(1).max(1440).default(35),
  /** How often installations are looked at for that. */
  APPS_WATCHDOG_EVERY_MS: z.coerce.number().int().min(100).default(15_000),
  /** How often the blobs are compared with the rows. */
  APPS_SWEEP_EVERY_MS: z.coerce.number().int().min(100).default(600_000),
  /** A blob without a row is deleted when it is older than this; a younger one may be an upload in hand. */
  APPS_ORPHAN_AFTER_MINUTES: z.coerce.number().int().min(1).max(10_080).default(60),
})
export type AppsSettings = z.infer<typeof AppsSettings>
