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
