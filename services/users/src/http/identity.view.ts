import type { InvitationRecord } from '../domain/invitation.ts'
import type { TenantRecord } from '../domain/tenant.ts'

export function viewOfInvitation({ id, email, role, createdAt, expiresAt }: InvitationRecord) {
  return { id, email, role, createdAt: createdAt.toISOString(), expiresAt: expiresAt.toISOString() }
}

export function viewOfTenant({ id, slug, name, status, createdAt }: TenantRecord) {
  return { id, slug, name, status, createdAt: createdAt.toISOString() }
}
