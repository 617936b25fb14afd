import { z } from 'zod'
import { Role } from '../access.ts'
import { QuotaLimits } from '../api/quota-api.ts'
import { defineEvent } from '../event.ts'
import { TenantId, UserId } from '../id.ts'

export const UserCreated = defineEvent({
  name: 'user.created',
  version: 1,
  aggregate: 'user',
  description: 'An account was made.',
  payload: z.object({ userId: UserId, tenantId: TenantId, email: z.string(), role: Role }),
})

export const UserSuspended = defineEvent({
  name: 'user.suspended',
  version: 1,
  aggregate: 'user',
  description: 'An account was locked out; nothing new is started for it.',
  payload: z.object({ userId: UserId, tenantId: TenantId, reason: z.string() }),
})

export const UserActivated = defineEvent({
  name: 'user.activated',
  version: 1,
  aggregate: 'user',
  description: 'A suspension was lifted.',
  payload: z.object({ userId: UserId, tenantId: TenantId }),
})

export const UserDeleted = defineEvent({
  name: 'user.deleted',
  version: 1,
  aggregate: 'user',
  description: 'An account was deleted: who holds something for it may release it.',
  payload: z.object({ userId: UserId, tenantId: TenantId }),
})

export const UserQuotaUpdated = defineEvent({
  name: 'user.quota_updated',
  version: 1,
  aggregate: 'user',
  description: 'The limits of an account were changed. Memory and storage in MB.',
  payload: z.object({ userId: UserId, tenantId: TenantId, ...QuotaLimits.shape }),
})

export const UserQuotaExceeded = defineEvent({
  name: 'user.quota_exceeded',
  version: 1,
  aggregate: 'user',
  description:
    'Something was refused because a limit of the account, or of its tenant, would be passed. Told once for each limit until something is given back or the limits change.',
  payload: z.object({
    userId: UserId,
    tenantId: TenantId,
    whose: z.enum(['user', 'tenant']),
    resource: z.enum(['devices', 'cpu', 'memory', 'storage', 'sessions']),
    limit: z.int(),
    used: z.int(),
    asked: z.int(),
  }),
})

export const TenantQuotaUpdated = defineEvent({
  name: 'tenant.quota_updated',
  version: 1,
  aggregate: 'tenant_quota',
  description: 'The limits of a tenant were changed. Memory and storage in MB.',
  payload: z.object({ tenantId: TenantId, ...QuotaLimits.shape }),
})
