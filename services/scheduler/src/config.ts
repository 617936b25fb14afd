import { z } from 'zod'

/** The settings of the scheduler. */
export const SchedulerSettings = z.object({
  /** How often it is looked for allocations whose time is over or whose phone is lost. */
  SCHEDULER_EXPIRY_EVERY_MS: z.coerce.number().int().min(50).max(60_000).default(1_000),
  /**
   * A phone that is said to be in ERROR is taken from its holder after this time at the latest; before it, the event
   * that says why may arrive by its own queue.
   */
  SCHEDULER_PHONE_LOST_GRACE_MS: z.coerce.number().int().min(0).max(600_000).default(2_000),
})
export type SchedulerSettings = z.output<typeof SchedulerSettings>
