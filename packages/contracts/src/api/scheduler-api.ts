import { z } from 'zod'
import { AllocationId, DeviceId, TenantId, UserId } from '../id.ts'
import { item, list, PageQuery, route } from '../route.ts'

export const AllocationStatus = z.enum([
  'PENDING',
  'QUEUED',
  'ACTIVE',
  'RELEASING',
  'RELEASED',
  'EXPIRED',
  'CANCELLED',
  'FAILED',
])
export type AllocationStatus = z.infer<typeof AllocationStatus>

export const Allocation = z.object({
  id: AllocationId,
  tenantId: TenantId,
  userId: UserId,
  deviceId: DeviceId,
  deviceName: z.string(),
  status: AllocationStatus,
  fence: z.int(),
  durationMinutes: z.int(),
  /** Why it ended; null while it lives. */
  reason: z.string().nullable(),
  sagaId: z.string(),
  createdAt: z.iso.datetime(),
  allocatedAt: z.iso.datetime().nullable(),
  expiresAt: z.iso.datetime().nullable(),
  releasedAt: z.iso.datetime().nullable(),
})
export type Allocation = z.infer<typeof Allocation>

const ByAllocation = z.strictObject({ allocationId: AllocationId })
const Accepted = z.object({ sagaId: z.string(), allocation: Allocation })

export const CreateAllocation = route({
  name: 'createAllocation',
  service: 'scheduler',
  method: 'POST',
  path: '/api/allocations',
  summary: 'Get a pooled phone for some minutes. Naming another user needs an operator.',
  access: { kind: 'user', permission: 'allocations:use' },
  audit: 'allocation.request',
  body: z.strictObject({
    userId: UserId.optional(),
    durationMinutes: z.int().min(1).max(1440).default(60),
  }),
  answer: item(Accepted, 202),
  problems: ['no_device_available', 'quota_exceeded', 'user_suspended'],
})

export const GetAllocation = route({
  name: 'getAllocation',
  service: 'scheduler',
  method: 'GET',
  path: '/api/allocations/:allocationId',
  summary: 'One allocation.',
  access: { kind: 'user', permission: 'allocations:read' },
  params: ByAllocation,
  answer: item(Allocation),
  problems: ['allocation_not_found'],
})

export const ListUserAllocations = route({
  name: 'listUserAllocations',
  service: 'scheduler',
  method: 'GET',
  path: '/api/allocations/user/:userId',
  summary: 'The allocations of a user, newest first.',
  access: { kind: 'user', permission: 'allocations:read' },
  params: z.strictObject({ userId: UserId }),
  query: PageQuery.extend({ status: AllocationStatus.optional() }),
  answer: list(Allocation),
})

export const ReleaseAllocation = route({
  name: 'releaseAllocation',
  service: 'scheduler',
  method: 'POST',
  path: '/api/allocations/:allocationId/release',
  summary: 'Give a phone back.',
  access: { kind: 'user', permission: 'allocations:use' },
  audit: 'allocation.release',
  params: ByAllocation,
  answer: item(Accepted, 202),
  problems: ['allocation_not_found', 'illegal_transition'],
})
