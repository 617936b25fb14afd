import { z } from 'zod'
import { AllocationId, DeviceId, UserId } from '../id.ts'
import { Currency, MicroUnits } from '../money.ts'
import { item, list, PageQuery, route } from '../route.ts'

export const UsageRecord = z.object({
  id: z.guid(),
  deviceId: DeviceId,
  userId: UserId,
  allocationId: AllocationId.nullable(),
  startTime: z.iso.datetime(),
  /** Null while the meter runs. */
  endTime: z.iso.datetime().nullable(),
  /** Whole seconds; null while the meter runs. */
  duration: z.int().nullable(),
  /** The price pinned at the start. */
  priceMicroPerHour: MicroUnits,
  costMicro: MicroUnits.nullable(),
  /** The cost for people, such as `1.00`. */
  cost: z.string().nullable(),
  currency: Currency,
  closedBy: z.string().nullable(),
})
export type UsageRecord = z.infer<typeof UsageRecord>

const filter = { userId: UserId.optional(), deviceId: DeviceId.optional() }

export const ListUsage = route({
  name: 'listUsage',
  service: 'billing',
  method: 'GET',
  path: '/api/billing/usage',
  summary: 'Usage records, newest first: one’s own, or anybody’s of the tenant for an operator.',
  access: { kind: 'user', permission: 'billing:read' },
  query: PageQuery.extend(filter),
  answer: list(UsageRecord),
})

export const UsageTotal = route({
  name: 'usageTotal',
  service: 'billing',
  method: 'GET',
  path: '/api/billing/usage/total',
  summary: 'The sum of closed records.',
  access: { kind: 'user', permission: 'billing:read' },
  query: z.strictObject(filter),
  answer: item(
    z.object({
      records: z.int(),
      open: z.int(),
      seconds: z.int(),
      costMicro: MicroUnits,
      cost: z.string(),
      currency: Currency,
    }),
  ),
})
