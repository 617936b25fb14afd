import { busGuards } from './bus-guards.ts'
import type { Guard } from './guard.ts'
import { leaseGuards } from './lease-guards.ts'
import { outboxGuards } from './outbox-guards.ts'
import { platformGuards } from './platform-guards.ts'
import { sagaGuards } from './saga-guards.ts'

/** Every guard whose removal must be noticed. A new guard in the code is a new entry in one of these. */
export const guards: readonly Guard[] = [
  ...sagaGuards,
  ...outboxGuards,
  ...busGuards,
  ...leaseGuards,
  ...platformGuards,
]
