import { z } from 'zod'
import { Role } from '../access.ts'
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
