import type { Role } from '@cloudphone/contracts/access'
import type { TenantId } from '@cloudphone/contracts/id'

/** An invitation that can still be accepted. */
export interface InvitationRecord {
  readonly id: string
  readonly email: string
  readonly tenantId: TenantId
  readonly role: Role
  readonly createdAt: Date
  readonly expiresAt: Date
}
